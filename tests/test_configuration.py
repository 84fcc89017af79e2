"""Walking configs: what is found in lists and wrappers, type names of every form, weights to start from."""

from mmengine.config import Config, ConfigDict
from torch import nn

from unireplknet_mm.configuration import (
    classes_of_datasets,
    classes_of_heads,
    drop_pretrained,
    find_dicts,
    find_pretrained,
    innermost_datasets,
    pretrained_weights,
    type_name,
)


def pretrained(checkpoint, kind='Pretrained'):
    return dict(type=kind, checkpoint=checkpoint)


def test_every_dict_is_found_outer_before_inner():
    config = dict(name='a', parts=[dict(name='b'), (dict(name='c', inner=dict(name='d')), 'x')])
    for form in (config, ConfigDict(config), Config(config)):
        assert [found['name'] for found in find_dicts(form)] == ['a', 'b', 'c', 'd']
    assert not list(find_dicts(None))


def test_dicts_may_change_while_they_are_walked():
    config = dict(a=dict(), b=dict())
    for found in find_dicts(config):
        found['seen'] = True
    assert config == dict(a=dict(seen=True), b=dict(seen=True), seen=True)


def test_type_names():
    assert type_name(dict(type='mmdet.CocoDataset')) == 'CocoDataset'
    assert type_name(dict(type=nn.Conv2d)) == 'Conv2d'
    assert type_name(dict()) == type_name(dict(type=None)) == ''


def test_weights_of_an_init_cfg():
    assert pretrained_weights(None) == pretrained_weights(dict(type='TruncNormal')) == []
    assert pretrained_weights(pretrained('a.pth')) == ['a.pth']
    several = [dict(type='Constant', val=0), pretrained('mmdet.pth', 'mmengine.PretrainedInit')]
    assert pretrained_weights(several) == ['mmdet.pth']
    assert pretrained_weights(pretrained(None)) == []


def model_config():
    return Config(
        dict(
            pretrained='whole.pth',
            backbone=dict(init_cfg=pretrained('backbone.pth')),
            heads=[
                dict(init_cfg=[dict(type='Normal', std=0.01), pretrained('head.pth')]),
                dict(init_cfg=dict(type='Normal'), pretrained=None),
            ],
        )
    )


def test_weights_of_a_model_are_found_and_dropped_alike():
    every = ['whole.pth', 'backbone.pth', 'head.pth']
    assert find_pretrained(model_config()) == every
    assert find_pretrained(None) == []

    cfg = model_config()
    assert drop_pretrained(cfg, lambda path: path == 'head.pth') == ['head.pth']
    assert cfg.heads[0].init_cfg == [dict(type='Normal', std=0.01)]
    assert find_pretrained(cfg) == ['whole.pth', 'backbone.pth']

    cfg = model_config()
    assert drop_pretrained(cfg, lambda path: True) == every
    assert find_pretrained(cfg) == []
    assert cfg.pretrained is None
    assert cfg.backbone.init_cfg is None
    assert cfg.heads[1].init_cfg == dict(type='Normal')


def test_innermost_datasets():
    coco, voc = dict(type='CocoDataset'), dict(type='VOCDataset', data_root='x')
    wrapped = dict(
        type='RepeatDataset',
        dataset=dict(type='ConcatDataset', datasets=[coco, dict(type='Wrapper', dataset=voc)]),
    )
    assert list(innermost_datasets(wrapped)) == [coco, voc]
    assert list(innermost_datasets(coco)) == [coco]


def test_numbers_of_classes():
    model = dict(
        rpn_head=dict(num_classes=1),
        roi_head=dict(bbox_head=[dict(num_classes=80)] * 2, mask_head=dict(num_classes=20)),
        backbone=dict(num_classes=1000),
    )
    assert classes_of_heads(model) == {80, 20}
    assert classes_of_heads(None) == set()
    datasets = [dict(metainfo=dict(classes=('a', 'b'))), dict(metainfo=None), dict()]
    assert classes_of_datasets(datasets) == {2}


def test_keys_need_not_be_strings():
    model = dict(backbone=dict(branches={13: ()}), head=dict(num_classes=7))
    assert classes_of_heads(model) == {7}
