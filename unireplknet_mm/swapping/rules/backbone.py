"""The backbone itself: which of the original's arguments have a meaning for UniRepLKNet, and which go."""

from mmengine.config import ConfigDict

from unireplknet_mm.configuration import type_name
from unireplknet_mm.swapping.recipes import published_rates
from unireplknet_mm.swapping.rules.heads import reads_maps
from unireplknet_mm.swapping.swap import STRIDES, Swap, describe

PLACE = 'model.backbone'
# Arguments that are part of the original network and go with it, each with what to tell the user.
DROPPED = dict(
    dcn='deformable convolutions are those of a ResNet; the large kernels take their place',
    plugins='they sit between the layers of a ResNet block',
    frozen_stages='the published recipes train every stage; frozen_stages=1 in the backbone freezes '
    'stem and first stage',
)


def replace_backbone(swap: Swap) -> None:
    """Put UniRepLKNet in, and report what becomes of each argument that was more than a size."""
    old = swap.old_backbone
    new = ConfigDict(type='UniRepLKNet', arch=swap.arch)
    if old.get('in_channels', 3) != 3:
        new['in_channels'] = old['in_channels']
    new['out_indices'] = swap.stages
    if swap.task == 'cls' and not reads_maps(swap):
        new['gap_before_final_norm'] = True
    if swap.output_stride != STRIDES[-1]:
        new['output_stride'] = swap.output_stride
    rates, source = published_rates(swap.task, swap.arch)
    new['drop_path_rate'] = rates.drop_path_rate
    swap.model['backbone'] = new
    depth = f'-{old["depth"]}' if 'depth' in old else ''
    indices = ', '.join(map(str, swap.stages))
    swap.report(
        PLACE, f'{swap.old_type}{depth} -> {swap.title}', f'asked for; stages {indices} are read'
    )
    swap.report(f'{PLACE}.drop_path_rate', f'{rates.drop_path_rate:g}', source)
    new['norm_cfg'] = _norm(swap)
    if old.get('with_cp'):
        new['with_cp'] = True
        swap.report(f'{PLACE}.with_cp', 'True', 'as in the original: less memory, more time')
    _report_dropped(swap)


def _norm(swap: Swap) -> ConfigDict:
    """SyncBN where the original trains no BatchNorm of its own or synchronises it, else BN."""
    old = swap.old_backbone
    norm = old.get('norm_cfg') or {}
    kind = type_name(norm)
    place = f'{PLACE}.norm_cfg'
    is_frozen = old.get('norm_eval') or norm.get('requires_grad') is False
    if kind in ('SyncBN', 'MMSyncBN'):
        swap.report(place, 'SyncBN', 'as in the original')
        return ConfigDict(type='SyncBN')
    if swap.task == 'cls' or (kind == 'BN' and not is_frozen):
        return ConfigDict(type='BN')
    what = f'{describe(norm)} -> SyncBN' if kind not in ('', 'BN') else 'SyncBN'
    swap.report(
        place, what, 'trained and synchronised, as in the published recipes: a GPU has few images'
    )
    return ConfigDict(type='SyncBN')


def _report_dropped(swap: Swap) -> None:
    old = swap.old_backbone
    for key, why in DROPPED.items():
        value = old.get(key)
        if value is None or (key == 'frozen_stages' and value < 0):
            continue
        swap.report(f'{PLACE}.{key}', f'{describe(value)} dropped', why)
    norm = old.get('norm_cfg') or {}
    if old.get('norm_eval'):
        why = 'the norms of the branches are folded with their statistics, which must be those of the data'
        swap.report(f'{PLACE}.norm_eval', 'True dropped', why)
    if norm.get('requires_grad') is False:
        why = 'the norms are trained, as in the published recipes'
        swap.report(f'{PLACE}.norm_cfg.requires_grad', 'False dropped', why)
    if old.get('conv_cfg') is not None:
        why = 'here it chooses the depthwise convolution, the compiled op by default'
        swap.report(f'{PLACE}.conv_cfg', f'{describe(old["conv_cfg"])} dropped', why)
