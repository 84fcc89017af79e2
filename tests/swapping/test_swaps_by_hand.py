"""RTMDet-L with ConvNeXt-B and Swin-B, which mmdet ships by hand, beside the tool's swap of RTMDet-L.

What differs is listed here and explained in docs/swapping.md; anything else would be news.
"""

import pytest

RTMDET = 'mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py'
BY_HAND = dict(
    convnext='mmdet::rtmdet/rtmdet_l_convnext_b_4xb32-100e_coco.py',
    swin='mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py',
)
# Key of the config -> why the tool leaves it as it is in the original.
OF_THE_RECIPE = {
    'model.neck.norm_cfg': 'GroupNorm for 4 images a GPU',
    'model.bbox_head.norm_cfg': 'GroupNorm for 4 images a GPU',
    'max_epochs': '100 epochs instead of 300',
    'stage2_num_epochs': '100 epochs instead of 300',
    'base_lr': 'for pretrained weights and half the batch',
    'train_cfg': '100 epochs instead of 300',
    'optim_wrapper.optimizer.lr': 'for pretrained weights and half the batch',
    'param_scheduler': '100 epochs instead of 300',
    'custom_hooks': '100 epochs instead of 300',
}
WHOLE = ('model.backbone', 'optim_wrapper.paramwise_cfg', 'train_cfg', *OF_THE_RECIPE)
OF_MMDET = ('norm_cfg', 'checkpoint', 'checkpoint_file', 'custom_imports')  # variables of the file


def changed(old: dict, new: dict, prefix: str = '') -> set[str]:
    """Paths of what differs; those of WHOLE without what is inside of them."""
    paths = set()
    for key in {*old, *new}:
        path = prefix + key
        if old.get(key) == new.get(key):
            continue
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict) and path not in WHOLE:
            paths |= changed(old[key], new[key], f'{path}.')
        else:
            paths.add(path)
    return paths


@pytest.mark.parametrize('kind', BY_HAND)
def test_differences_from_the_hand_made_configs_are_known(plan, original, kind):
    base, by_hand = (
        original(RTMDET)._cfg_dict.to_dict(),
        original(BY_HAND[kind])._cfg_dict.to_dict(),
    )
    decay = True if kind == 'convnext' else None
    swap = plan(RTMDET, arch='b', pretrained='unireplknet_b_in22k', layer_decay=decay)
    ours = swap.config.to_dict()
    by_tool, expected = changed(base, ours), changed(base, by_hand)
    # Swin is mmdet's own, and has no layer scales, which mmdet's constructor would decay.
    own = {'custom_imports', 'optim_wrapper.constructor', 'optim_wrapper.paramwise_cfg'}
    assert by_tool - expected <= own
    # neck.in_channels is 256, 512, 1024 before and after, by hand and by the tool.
    assert expected - by_tool - set(OF_THE_RECIPE) - set(OF_MMDET) == set()
    assert ours['model']['data_preprocessor'] == by_hand['model']['data_preprocessor']
    assert ours['model']['neck']['in_channels'] == by_hand['model']['neck']['in_channels']
    backbone, their_backbone = ours['model']['backbone'], by_hand['model']['backbone']
    assert tuple(backbone['out_indices']) == tuple(their_backbone['out_indices'])
    assert backbone['init_cfg']['type'] == their_backbone['init_cfg']['type'] == 'Pretrained'


def test_layers_train_at_the_same_rates_as_in_the_hand_made_convnext(plan, original):
    swap = plan(RTMDET, arch='b', pretrained='unireplknet_b_in22k', layer_decay=True)
    ours = swap.config['optim_wrapper']
    theirs = original(BY_HAND['convnext']).optim_wrapper
    assert ours['paramwise_cfg']['decay_rate'] == theirs.paramwise_cfg.decay_rate == 0.8
    assert theirs.paramwise_cfg.num_layers == 12  # UniRepLKNet's, which need not be said
    assert ours['optimizer']['type'] == theirs.optimizer.type == 'AdamW'
