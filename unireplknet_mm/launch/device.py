"""CPU or GPU, one process or several: what a config needs for the machine at hand."""

import importlib
import os

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.logging import print_log
from torch import distributed

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.errors import UserError
from unireplknet_mm.launch.arguments import enable_amp

SYNC_NORMS = ('SyncBN', 'MMSyncBN')


def prepare_device(cfg: Config, launcher: str, device: str) -> None:
    """Choose CPU or GPU, start the processes' communication, and fit the config to both.

    Where there is no GPU, the processes talk through gloo, and mixed precision is bfloat16. Without
    a GPU, or with one process, SyncBN becomes BN, whose parameters have the same names.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        device: 'auto', 'cpu' or 'cuda'. For 'cpu' the caller has hidden the GPUs before it imported
            torch (`CUDA_VISIBLE_DEVICES=`).

    Raises:
        UserError: no GPU where one is asked for, more processes than GPUs, no launcher at work.
    """
    cfg.launcher = launcher
    _check_device(launcher, device)
    on_cpu = get_device() == 'cpu'
    if on_cpu:
        _use_cpu(cfg)
    if launcher != 'none' and not distributed.is_initialized():
        # The defaults of its functions are the process group at the time of the import, which torch.compile
        # brings about: imported later they would keep the group, and gloo's threads, to the very end.
        importlib.import_module('torch.distributed.nn.functional')
        if on_cpu:
            # MMEngine's init_dist selects a GPU, also where there is none.
            distributed.init_process_group(cfg.env_cfg.dist_cfg.backend)
        elif cfg.get('runner_type', 'Runner') == 'Runner':
            init_dist(launcher, **(cfg.get('env_cfg') or {}).get('dist_cfg', {}))
    if on_cpu or launcher == 'none':
        _replace_sync_norms(cfg, 'no GPU' if on_cpu else 'one process')


def choose_device(device: str) -> str:
    """'cpu' or 'cuda', for tools that measure: 'auto' is the GPU where there is one.

    Raises:
        UserError: no GPU where one is asked for.
    """
    if device == 'cuda' and not torch.cuda.is_available():
        raise UserError(
            '--device cuda asks for a GPU, but torch sees none.\nRun with --device cpu.'
        )
    return device if device != 'auto' else 'cuda' if torch.cuda.is_available() else 'cpu'


def _check_device(launcher: str, device: str) -> None:
    gpus = torch.cuda.device_count()
    if device == 'cuda' and not gpus:
        reason = f'torch {torch.__version__} sees none'
        if torch.version.cuda is None:
            reason = f'torch {torch.__version__} is built without CUDA'
        raise UserError(f'--device cuda asks for a GPU, but {reason}.\nRun with --device cpu.')
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch expects to be started by torchrun.\n'
            'Use tools/dist_train.sh CONFIG GPUS or tools/dist_test.sh CONFIG CHECKPOINT GPUS.'
        )
    if launcher != 'pytorch' and get_device() == 'cpu':
        raise UserError(
            f'--launcher {launcher} needs GPUs, and there is none. On CPU, several processes are\n'
            'started with tools/dist_train.sh CONFIG PROCESSES.'
        )
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if gpus and processes > gpus:
        raise UserError(
            f'{processes} processes were started on a machine with {gpus} GPU(s).\n'
            f'Start at most {gpus}, or add --device cpu.'
        )


def _use_cpu(cfg: Config) -> None:
    cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
    cfg.env_cfg.dist_cfg = dict(backend='gloo')
    if cfg.launcher != 'none':
        wrapper = cfg.get('model_wrapper_cfg') or dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        cfg.model_wrapper_cfg = {**wrapper, 'device_ids': None}
    if type_name(cfg.get('optim_wrapper') or {}) == 'AmpOptimWrapper':
        enable_amp(cfg)


def _replace_sync_norms(cfg: Config, reason: str) -> None:
    norms = [config for config in find_dicts(cfg.get('model')) if type_name(config) in SYNC_NORMS]
    for norm in norms:
        norm['type'] = 'BN'
    cfg.pop('sync_bn', None)
    if norms:
        print_log(f'SyncBN is replaced by BN: {reason}.', logger='current')
