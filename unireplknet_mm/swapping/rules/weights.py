"""Where the training starts from: weights of the original backbone fit no other one."""

from unireplknet_mm.configuration import find_pretrained
from unireplknet_mm.swapping.swap import Swap
from unireplknet_mm.weights.published import PUBLISHED, find_published


def replace_weights(swap: Swap) -> None:
    """Take the original's weights out, and put in those that were asked for.

    Raises:
        SwapError: the weights are published for another architecture.
    """
    old = find_pretrained(swap.old_backbone)
    if isinstance(
        swap.model.get('pretrained'), str
    ):  # mmcv 1's form, which mmseg hands to the backbone
        old.append(swap.model['pretrained'])
        swap.model['pretrained'] = None
        swap.report('model.pretrained', 'None', "mmseg would hand it to the backbone's constructor")
    for name in old:
        swap.report('model.backbone.init_cfg', f'{name} dropped', f'weights of {swap.old_type}')
    if swap.config.get('load_from'):
        swap.set('', swap.config, 'load_from', None, f'weights of a model with {swap.old_type}')
    if swap.pretrained is None:
        names = [
            name
            for name, weights in PUBLISHED.items()
            if weights.arch == swap.arch and weights.dataset.startswith('ImageNet')
        ]
        choice = f' --pretrained takes {", ".join(names)}, or a file.' if names else ''
        swap.warn(f'the backbone starts from random weights.{choice}')
        return
    published = find_published(swap.pretrained)
    if published and published.arch != swap.arch:
        swap.refuse(
            f'{swap.pretrained} are weights of arch {published.arch}, and --arch is {swap.arch}'
        )
    swap.set(
        'model.backbone',
        swap.model['backbone'],
        'init_cfg',
        dict(type='Pretrained', checkpoint=swap.pretrained),
        f'{swap.pretrained}, as asked for',
    )
