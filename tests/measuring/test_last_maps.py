"""The last map of networks of every library, their weights and their images."""

import numpy as np
import pytest
import torch
from helpers import SMALL_ARCH, save
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from PIL import Image
from torch import nn

from unireplknet_mm.errors import ArgumentError, UserError
from unireplknet_mm.measuring.catalogue import find_model, with_weights
from unireplknet_mm.measuring.last_maps import (
    Normalization,
    find_images,
    last_map_of,
    load_weights,
    normalization_of,
    random_images,
    read_images,
)
from unireplknet_mm.measuring.peers import RepLKNetClassifier, SLaK
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.whole_model import switch_to_deploy

SMALL_PEER = dict(channels=(4, 8, 8, 16), depths=(1, 1, 1, 1), kernel_sizes=(7, 7, 7, 5))


def image(size: int = 64) -> torch.Tensor:
    return next(random_images(1, 3, size, 'cpu'))


@pytest.mark.parametrize(
    'make',
    [
        lambda: UniRepLKNet(SMALL_ARCH),
        lambda: UniRepLKNet(SMALL_ARCH, out_indices=(3,), gap_before_final_norm=True),
        lambda: nn.Sequential(UniRepLKNet(SMALL_ARCH)),
    ],
)
def test_of_a_uni_rep_lk_net_it_is_what_the_last_stage_makes(make):
    model = with_weights(make())
    last_map = last_map_of(model)
    feature = last_map(image())
    assert feature.shape == (1, 32, 2, 2)
    backbone = model if isinstance(model, UniRepLKNet) else model[0]
    x = image()
    with torch.no_grad():
        for downsample, stage in zip(backbone.downsample_layers, backbone.stages, strict=True):
            x = stage(downsample(x))
    assert torch.allclose(feature, x, rtol=1e-4, atol=1e-5)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    switch_to_deploy(model)
    assert torch.allclose(last_map(image()), feature, rtol=1e-3, atol=1e-3)


def test_a_stage_that_is_not_asked_for_is_not_run():
    last_map = last_map_of(UniRepLKNet(SMALL_ARCH, out_indices=(0, 1)))
    assert last_map(image()).shape == (1, 16, 8, 8)


@pytest.mark.parametrize(('kind', 'channels'), [(RepLKNetClassifier, 16), (SLaK, 20)])
def test_of_a_peer_it_is_what_is_pooled(kind, channels):
    feature = last_map_of(kind(**SMALL_PEER))(image())
    assert feature.shape == (1, channels, 2, 2)


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        (dict(type='ResNet', depth=18, base_channels=4, stem_channels=4), 32),
        (dict(type='ConvNeXt', arch=dict(depths=[1] * 4, channels=[4, 8, 8, 16])), 16),
        (
            dict(
                type='SwinTransformer',
                arch=dict(embed_dims=4, depths=[1] * 4, num_heads=[1] * 4),
                img_size=64,
                window_size=2,
            ),
            32,
        ),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else None,
)
def test_of_a_model_of_mmpretrain_it_is_its_backbone_s_map(backbone, channels):
    pytest.importorskip('mmpretrain.models')
    model = nn.Module()
    model.backbone = MODELS.build(backbone | dict(type=f'mmpretrain.{backbone["type"]}'))
    assert last_map_of(model)(image()).shape == (1, channels, 2, 2)


def test_of_a_vision_transformer_it_is_its_map_of_tokens():
    pytest.importorskip('mmpretrain.models')
    arch = dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=8)
    model = nn.Module()
    model.backbone = MODELS.build(
        dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=64, patch_size=16)
    )
    assert last_map_of(model)(image()).shape == (1, 8, 4, 4)


@pytest.mark.parametrize('name', ['resnet10t', 'test_convnext', 'test_vit2'])
def test_of_a_model_of_timm_it_is_the_last_of_its_features(name):
    pytest.importorskip('timm')
    model = find_model(f'timm:{name}')().model
    feature = last_map_of(model)(image(160))
    stride = 16 if 'vit' in name else 32
    assert feature.shape == (1, model.num_features, 160 // stride, 160 // stride)


def test_what_has_none_is_named():
    with pytest.raises(ArgumentError, match='Linear has no last map'):
        last_map_of(nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match='Sequential has no last map'):
        last_map_of(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_weights_of_the_suite_and_of_others(tmp_path):
    trained = with_weights(UniRepLKNet(SMALL_ARCH))
    file = save(tmp_path / 'own.pth', dict(model=trained.state_dict()))
    model = UniRepLKNet(SMALL_ARCH)
    load_weights(model, str(file))
    assert torch.equal(model.stages[0][0].gamma, trained.stages[0][0].gamma)
    peer = with_weights(SLaK(**SMALL_PEER))
    file = save(tmp_path / 'peer.pth', dict(state_dict=peer.state_dict()))
    model = SLaK(**SMALL_PEER)
    load_weights(model, str(file))
    assert all(torch.equal(t, peer.state_dict()[n]) for n, t in model.state_dict().items())
    with pytest.raises(UserError, match=r'does not match RepLKNetClassifier: .* missing'):
        load_weights(RepLKNetClassifier(**SMALL_PEER), str(file))


def test_the_suite_s_own_have_no_weights_by_themselves():
    with pytest.raises(ArgumentError, match='unireplknet_a has no weights by itself'):
        find_model('unireplknet_a', pretrained=True)


def test_images_are_found_in_order_read_and_normalized(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[..., 0] = 200
    for name in ('b.png', 'a.PNG', 'c/d.bmp'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no image')
    found = find_images([tmp_path], 2)
    assert [path.name for path in found] == ['a.PNG', 'b.png']
    normalization = Normalization((100.0, 0.0, 0.0), (50.0, 1.0, 1.0))
    (first, _) = read_images(found, 8, normalization, 'cpu')
    assert first.shape == (1, 3, 8, 8)
    assert torch.allclose(first[0, 0], torch.tensor(2.0)) and not first[0, 1:].any()
    swapped = next(read_images(found, 8, normalization._replace(is_rgb=False), 'cpu'))
    assert torch.allclose(swapped[0, 2], torch.tensor(200.0))
    with pytest.raises(UserError, match='--images: there is no image'):
        find_images([tmp_path / 'notes.txt'], 2)
    with pytest.raises(UserError, match='nowhere, which --images names, does not exist'):
        find_images([tmp_path / 'nowhere'], 2)
    (tmp_path / 'z.jpg').write_text('no image')
    with pytest.raises(UserError, match=r'z\.jpg cannot be read as an image'):
        list(read_images(find_images([tmp_path / 'z.jpg'], 1), 8, normalization, 'cpu'))


def test_normalization_is_that_of_the_config():
    cfg = Config(dict(model=dict(type='X')))
    assert normalization_of(cfg) == Normalization()
    cfg.model.data_preprocessor = ConfigDict(mean=[1.0] * 3, std=[2.0] * 3, bgr_to_rgb=False)
    assert normalization_of(cfg) == Normalization((1.0,) * 3, (2.0,) * 3, False)
    cfg.data_preprocessor = ConfigDict(mean=[3.0] * 3, std=[2.0] * 3, to_rgb=True)
    assert normalization_of(cfg) == Normalization((3.0,) * 3, (2.0,) * 3, True)
