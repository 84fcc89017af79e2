"""What makes the written config run anywhere: the import that registers UniRepLKNet."""

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
