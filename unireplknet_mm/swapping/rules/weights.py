"""Where the training starts from: weights of the original backbone fit no other one."""

from collections.abc import Iterator

from unireplknet_mm.configuration import drop_pretrained, find_dicts, find_pretrained
from unireplknet_mm.models.architecture import resolve_architecture
from unireplknet_mm.models.state_dict import check_architecture, extract_backbone_state_dict
from unireplknet_mm.swapping.swap import Swap, SwapError
from unireplknet_mm.weights.published import (
    PUBLISHED,
    ZOOS,
    find_published,
    is_remote,
    local_path,
    where_to_get,
)
from unireplknet_mm.weights.reading import CheckpointError, check_address, open_checkpoint

UNNAMED = 'Pretrained without a file'  # a template, in which the user is to name one


def replace_weights(swap: Swap) -> None:
    """Take the original's weights out, and put in those that were asked for.

    Raises:
        UserError: the weights are of another architecture or network, a file is not there or cannot be read,
            or nothing reads an address.
    """
    _drop_weights_of_other_parts(swap)
    old = find_pretrained(swap.old_backbone)
    if isinstance(
        swap.model.get('pretrained'), str
    ):  # mmcv 1's form, which mmseg hands to the backbone
        old.append(swap.model['pretrained'])
        swap.model['pretrained'] = None
        swap.report('model.pretrained', 'None', "mmseg would hand it to the backbone's constructor")
    for name in old:
        swap.report(
            'model.backbone.init_cfg', f'{name or UNNAMED} dropped', f'weights of {swap.old_type}'
        )
    if swap.config.get('load_from'):
        swap.set('', swap.config, 'load_from', None, f'weights of a model with {swap.old_type}')
    if swap.pretrained is None:
        swap.warn(f'the backbone starts from random weights. --pretrained takes {_choices(swap)}.')
        return
    _check_weights(swap)
    swap.set(
        'model.backbone',
        swap.model['backbone'],
        'init_cfg',
        dict(type='Pretrained', checkpoint=swap.pretrained),
        f'{swap.pretrained}, as asked for',
    )


def _drop_weights_of_other_parts(swap: Swap) -> None:
    """Weights of the whole model, its neck and its heads: they were trained on the original's maps."""
    for place, owner in _parts_behind_the_backbone(swap):
        holder = dict(init_cfg=owner.get('init_cfg'))
        for name in drop_pretrained(holder, lambda name: True):
            what = f'{name or UNNAMED} dropped'
            swap.report(f'{place}.init_cfg', what, f'weights of a model with {swap.old_type}')
            if holder['init_cfg'] is not None or owner is swap.model:
                owner['init_cfg'] = holder['init_cfg']
            else:  # of a head, None would turn its default off as well
                owner.pop('init_cfg', None)


def _parts_behind_the_backbone(swap: Swap) -> Iterator[tuple[str, dict]]:
    """The model and every dict in its neck and heads, with their places."""
    yield 'model', swap.model
    for key, value in swap.model.items():
        if key in ('neck', 'encoder', 'decoder') or key.endswith('head'):
            for part in find_dicts(value):
                yield f'model.{key}', part


def _choices(swap: Swap) -> str:
    """The published weights of the architecture, and a file, in words."""
    names = [
        name
        for name, weights in PUBLISHED.items()
        if weights.arch == swap.arch and weights.dataset.startswith('ImageNet')
    ]
    return f'{", ".join(names)}, or a file' if names else 'a file'


def _check_weights(swap: Swap) -> None:
    """See that the weights fit, as far as that is seen without fetching any."""
    source = swap.pretrained
    published = find_published(source)
    if published and published.arch != swap.arch:
        swap.refuse(f'{source} are weights of arch {published.arch}, and --arch is {swap.arch}')
    if source.startswith(ZOOS):
        zoo = source.partition('://')[0]
        swap.refuse(f'--pretrained {source}: {zoo}:// has no UniRepLKNet; take {_choices(swap)}')
    check_address(source)
    if is_remote(source):
        return
    path = local_path(source)
    if not path.is_file():
        raise SwapError(
            f'--pretrained {source}: {path.resolve()} does not exist{where_to_get(source)}'
        )
    try:
        weights = extract_backbone_state_dict(open_checkpoint(source))
        check_architecture(weights, resolve_architecture(swap.arch))
    except CheckpointError as error:
        raise SwapError(f'--pretrained {source}: {error}') from None
