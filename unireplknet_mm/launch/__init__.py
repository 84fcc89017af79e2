"""From a command line to a runner, with clear errors; for tools/ only.

The tools call these functions in order. Each changes the config in place, and raises `UserError`
before anything is built when a path, a device or a setting cannot work.
"""

from unireplknet_mm.errors import UserError
from unireplknet_mm.files import create_folder
from unireplknet_mm.launch.arguments import (
    enable_amp,
    enable_auto_scale_lr,
    load_config,
    override,
    set_resume,
    set_seed,
    set_work_dir,
)
from unireplknet_mm.launch.demo_run import report_demo_run, resumed_iteration, use_demo_data
from unireplknet_mm.launch.device import choose_device, prepare_device
from unireplknet_mm.launch.mistakes import explain_mistakes
from unireplknet_mm.launch.preflight import (
    check_checkpoint,
    check_complete,
    check_content,
    check_data,
    check_pretrained,
    check_schedule,
    create_work_dir,
    input_channels,
    input_size,
)
from unireplknet_mm.launch.runner import (
    add_hook,
    build_runner,
    exit_on_user_error,
    make_resumable,
    test,
    train,
    watch_losses,
)

__all__ = [
    'UserError',
    'add_hook',
    'build_runner',
    'check_checkpoint',
    'check_complete',
    'check_content',
    'check_data',
    'check_pretrained',
    'check_schedule',
    'choose_device',
    'create_folder',
    'create_work_dir',
    'enable_amp',
    'enable_auto_scale_lr',
    'exit_on_user_error',
    'explain_mistakes',
    'input_channels',
    'input_size',
    'load_config',
    'make_resumable',
    'override',
    'prepare_device',
    'report_demo_run',
    'resumed_iteration',
    'set_resume',
    'set_seed',
    'set_work_dir',
    'test',
    'train',
    'use_demo_data',
    'watch_losses',
]
