"""What makes the written config run: the import that registers UniRepLKNet, a work dir of its own."""

from mmengine.config import Config

from unireplknet_mm.swapping.config_files import FILE_NAME
from unireplknet_mm.swapping.swap import Swap

PACKAGE = 'unireplknet_mm'


def import_the_suite(swap: Swap) -> None:
    imports = swap.config.get('custom_imports') or {}
    modules = imports.get('imports', [])
    modules = [modules] if isinstance(modules, str) else list(modules)
    if PACKAGE not in modules:
        swap.config['custom_imports'] = {
            **imports,
            'imports': [*modules, PACKAGE],
            'allow_failed_imports': False,
        }
        swap.report('custom_imports', PACKAGE, 'it registers UniRepLKNet')


def name_work_dir_after_the_file(swap: Swap) -> None:
    """State a `work_dir` with the file's name in it anew: inherited, it has the name of the original."""
    if swap.path is None or not isinstance(swap.config.get('work_dir'), str):
        return
    stated = Config.fromfile(swap.path, use_predefined_variables=False).work_dir
    if '{{' not in FILE_NAME.sub('', stated):
        why = 'inherited, it would be that of the original'
        swap.set('', swap.config, 'work_dir', stated, why)
