"""Walking through nested configs: dicts, type names, data sets, heads, `init_cfg`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mmengine.config import Config

PRETRAINED = ('Pretrained', 'PretrainedInit')


def find_dicts(config: Any) -> Iterator[dict]:
    """Every dict in a nested config, outer before inner."""
    if isinstance(config, Config):
        config = config._cfg_dict
    if isinstance(config, dict):
        yield config
        for value in list(config.values()):
            yield from find_dicts(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from find_dicts(value)


def type_name(config: dict) -> str:
    """The bare name of a config's type, which may carry a scope ('mmdet.X') or be the class itself.

    '' for a dict without a type.
    """
    kind = config.get('type') or ''
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', str(kind))


def innermost_datasets(dataset: dict) -> Iterator[dict]:
    """The data sets inside wrappers such as RepeatDataset and ConcatDataset; the data set itself without."""
    if 'datasets' in dataset:
        for inner in dataset['datasets']:
            yield from innermost_datasets(inner)
    elif isinstance(dataset.get('dataset'), dict):
        yield from innermost_datasets(dataset['dataset'])
    else:
        yield dataset


def classes_of_heads(model: Any) -> set[int]:
    """The numbers of classes that the heads of a model's config have.

    An RPN head knows only objects; its `num_classes`, where written, is 1 and does not count.
    """
    heads = [
        value
        for config in find_dicts(model)
        for key, value in config.items()
        if str(key).endswith('head') and key != 'rpn_head'
    ]
    return {
        config['num_classes']
        for config in find_dicts(heads)
        if isinstance(config.get('num_classes'), int)
    }


def classes_of_datasets(datasets: Iterable[dict]) -> set[int]:
    """The numbers of classes that the configs of data sets name in their `metainfo`."""
    return {
        len(dataset['metainfo']['classes'])
        for dataset in datasets
        if (dataset.get('metainfo') or {}).get('classes')
    }


def pretrained_weights(init_cfg: dict | list[dict] | None) -> list[str]:
    """The files or URLs that an `init_cfg`, one dict or several, starts from."""
    return [init['checkpoint'] for init in _as_list(init_cfg) if _is_pretrained(init)]


def drop_pretrained(model: Any, is_unwanted: Callable[[str], bool]) -> list[str]:
    """Take weights to start from out of a model's config, in place, and return their names.

    Those of an `init_cfg` and of mmcv 1's `pretrained`.

    Args:
        model: the config.
        is_unwanted: called with a file or URL; whether it goes.
    """
    dropped = []
    for config in find_dicts(model):
        if isinstance(config.get('pretrained'), str) and is_unwanted(config['pretrained']):
            dropped.append(config['pretrained'])
            config['pretrained'] = None
        inits = _as_list(config.get('init_cfg'))
        kept = [
            init for init in inits if not (_is_pretrained(init) and is_unwanted(init['checkpoint']))
        ]
        if len(kept) < len(inits):
            dropped += [init['checkpoint'] for init in inits if init not in kept]
            config['init_cfg'] = kept or None
    return dropped


def find_pretrained(model: Any) -> list[str]:
    """Every file or URL that a model's config starts from, as `drop_pretrained` sees them."""
    found = []
    for config in find_dicts(model):
        if isinstance(config.get('pretrained'), str):
            found.append(config['pretrained'])
        found += pretrained_weights(config.get('init_cfg'))
    return found


def _as_list(init_cfg: dict | list[dict] | None) -> list[dict]:
    inits = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])
    return [init for init in inits if isinstance(init, dict)]


def _is_pretrained(init: dict) -> bool:
    return type_name(init) in PRETRAINED and isinstance(init.get('checkpoint'), str)


def as_names(stated: Sequence | None) -> tuple[str, ...]:
    """Stated classes, of which a config may have written some as numbers; none where nothing states them."""
    return tuple(map(str, stated or ()))
