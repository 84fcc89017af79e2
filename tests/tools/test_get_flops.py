"""Parameters and FLOPs of every config against the paper's Tables 4 to 7.

All agree within 1 %, or to the printed digits where these are coarser. FLOPs of detection and
segmentation agree within 0.1 %, which tells what the paper counted: the deploy form, multiply-adds
of convolutions and matrix products, and for UPerNet neither cost nor parameters of the auxiliary
head. Its parameters of Cascade Mask R-CNN with T and L are 0.6 % and 0.2 % above ours.
"""

import importlib
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH
from mmengine.config import Config
from torch import nn

from unireplknet_mm.errors import UserError
from unireplknet_mm.models import UniRepLKNet

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.01

# config: millions of parameters and GFLOPs, at the tool's default size
PAPER = {
    'cls/unireplknet_a_in1k': (4.4, 0.6),
    'cls/unireplknet_f_in1k': (6.2, 0.9),
    'cls/unireplknet_p_in1k': (10.7, 1.6),
    'cls/unireplknet_n_in1k': (18.3, 2.8),
    'cls/unireplknet_t_in1k': (31.0, 4.9),
    'cls/unireplknet_s_in1k': (55.6, 9.1),
    'cls/unireplknet_s_in22k_to_in1k_384': (55.6, 26.7),
    'cls/unireplknet_b_in22k_to_in1k_384': (97.9, 47.2),
    'cls/unireplknet_l_in22k_to_in1k_384': (218.3, 105.4),
    'cls/unireplknet_xl_in22k_to_in1k_384': (386.4, 187),
    'det/cascade_unireplknet_t_3x': (89, 749),
    'det/cascade_unireplknet_s_3x': (113, 835),
    'det/cascade_unireplknet_s_in22k_3x': (113, 835),
    'det/cascade_unireplknet_b_3x': (155, 978),
    'det/cascade_unireplknet_l_3x': (276, 1385),
    'det/cascade_unireplknet_xl_3x': (443, 1952),
    'seg/upernet_unireplknet_t_160k': (61, 946),
    'seg/upernet_unireplknet_s_160k': (86, 1036),
    'seg/upernet_unireplknet_s_in22k_160k': (86, 1618),
    'seg/upernet_unireplknet_b_160k': (130, 1850),
    'seg/upernet_unireplknet_l_160k': (254, 2507),
    'seg/upernet_unireplknet_xl_160k': (425, 3420),
}


@pytest.fixture(scope='module')
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'tools')
        return importlib.import_module('get_flops')


def count(tool, name: str) -> tuple[float, float]:
    """Millions of parameters and GFLOPs of the deploy form."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    parts = tool.count_parts(tool.build_on_meta(cfg), *tool.default_shape(cfg))
    return sum(p.parameters for p in parts) / 1e6, sum(p.flops for p in parts) / 1e9


def rounding(value: float) -> float:
    """Half of the last printed digit: 0.05 for 4.4, 0.5 for 89."""
    return 0.05 if isinstance(value, float) else 0.5


@pytest.mark.parametrize('name', PAPER)
def test_paper(tool, name):
    for counted, printed in zip(count(tool, name), PAPER[name], strict=True):
        assert abs(counted - printed) <= max(TOLERANCE * printed, rounding(printed))


def test_all_published_configs_are_compared():
    for task in ('cls', 'det', 'seg'):
        for path in (ROOT / 'configs' / task).glob('*unireplknet_*.py'):
            if 'Paper:' in path.read_text():
                assert f'{task}/{path.stem}' in PAPER


@pytest.mark.parametrize(
    'name', ['det/dino_unireplknet_t_12e', 'seg/mask2former_unireplknet_t_160k']
)
def test_heads_that_need_more_than_maps_are_named(tool, name):
    with pytest.raises(UserError, match=r'(DINO|Mask2Former)Head does not run on maps alone'):
        count(tool, name)


def test_a_convolution_and_a_linear_layer_by_hand(tool):
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 5, stride=2, padding=2, groups=3)

        def forward(self, x):
            return self.conv(x).mean((2, 3))

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone()
            self.head = nn.Linear(6, 7)

    with torch.device('meta'):
        backbone, head = tool.count_parts(Classifier().eval(), 8, 12)
    assert backbone == tool.Part('backbone', 6 * 25 + 6, 4 * 6 * 6 * 25)
    assert head == tool.Part('head', 6 * 7 + 7, 6 * 7)


@pytest.mark.parametrize('channels', [1, 8])
def test_other_input_channels_change_the_stem_alone(tool, capsys, channels):
    path = str(ROOT / 'configs/cls/unireplknet_a_in1k.py')
    cfg = Config.fromfile(path)
    three = tool.count_parts(tool.build_on_meta(cfg), 64, 64)
    cfg.model.backbone.in_channels = channels
    model = tool.build_on_meta(cfg)
    counted = tool.count_parts(model, 64, 64, tool.leading_shape(model, cfg.get('input_shape')))
    weights = (
        (channels - 3) * 20 * 9
    )  # of the first convolution, of half the 40 channels and stride 2
    assert counted[0].parameters == three[0].parameters + weights
    assert counted[0].flops == three[0].flops + weights * 32 * 32
    assert counted[1] == three[1]

    tool.main([path, '--shape', '64', '--cfg-options', f'model.backbone.in_channels={channels}'])
    assert f'backbone  {counted[0].parameters / 1e6:>8.2f} M' in capsys.readouterr().out


class Net(nn.Module):
    """Two encoders of eight and three channels, and a layer of its own."""

    def __init__(self):
        super().__init__()
        self.image_encoder = UniRepLKNet(SMALL_ARCH, in_channels=8)
        self.other = UniRepLKNet(SMALL_ARCH, in_channels=3, conv_cfg=None)
        self.decoder = nn.Conv2d(32, 5, 1)

    def forward(self, x):
        return self.decoder(self.image_encoder(x)[-1] + self.other(x[:, :3])[-1])


class Host(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)


def test_a_model_without_a_backbone_is_counted_by_its_forward_pass(tool):
    with torch.device('meta'):
        host = Host().eval()
    image_encoder, other, rest = tool.count_parts(host, 64, 96, leading=(8,))
    for part, encoder, channels in (
        (image_encoder, host.net.image_encoder, 8),
        (other, host.net.other, 3),
    ):
        (alone, nothing) = tool.count_parts(encoder, 64, 96, (channels,))
        assert (part.parameters, part.flops) == (alone.parameters, alone.flops)
        assert (nothing.parameters, nothing.flops) == (0, 0)
    assert (image_encoder.name, other.name) == ('net.image_encoder', 'net.other')
    stem = (8 - 3) * 4 * 9
    assert image_encoder.parameters == other.parameters + stem
    assert image_encoder.flops == other.flops + stem * 32 * 48
    assert rest == tool.Part('the rest', 32 * 5 + 5, 32 * 5 * 2 * 3)


def test_a_model_that_takes_no_such_input(tool):
    with torch.device('meta'):
        host = Host().eval()
    with pytest.raises(UserError) as info:
        tool.count_parts(host, 64, 96)
    lines = str(info.value).splitlines()
    assert lines[0].startswith('Host does not run on an input (1, 3, 64, 96) alone: ')
    assert lines[1:] == [
        'A model without a backbone and a head, as mmdet, mmseg and mmpretrain name them, is counted on a '
        'forward pass.'
    ]


@pytest.mark.parametrize(
    ('cfg', 'shape'),
    [
        (dict(default_scope='mmdet'), (800, 1280)),
        (dict(default_scope='mmseg', crop_size=(512, 256)), (512, 1024)),
        (dict(train_pipeline=[dict(type='RandomResizedCrop', scale=192)]), (192, 192)),
        (dict(train_pipeline=[dict(type='RandomResizedCrop', scale=(96, 128))]), (96, 128)),
        (dict(default_scope='mmdet', input_shape=(1, 128, 1024)), (128, 1024)),
        (dict(input_shape=(1024, 128)), (1024, 128)),
        (dict(input_shape=(16, 3, 224, 160)), (224, 160)),
    ],
)
def test_default_shape(tool, cfg, shape):
    assert tool.default_shape(Config(cfg)) == shape


def test_training_form_costs_more(tool):
    cfg = Config.fromfile(ROOT / 'configs/cls/unireplknet_a_in1k.py')
    deploy = tool.count_parts(tool.build_on_meta(cfg), 224, 224)
    training = tool.count_parts(tool.build_on_meta(cfg, deploy=False), 224, 224)
    assert training[0].flops > 1.02 * deploy[0].flops
    assert training[0].parameters > deploy[0].parameters
    assert training[1] == deploy[1]


def test_boxes_without_masks(tool):
    cfg = Config.fromfile(ROOT / 'configs/det/cascade_unireplknet_t_3x.py')
    names = [p.name for p in tool.count_parts(tool.build_on_meta(cfg), 64, 64)]
    for key in ('mask_head', 'mask_roi_extractor'):
        cfg.model.roi_head.pop(key)
    without = [p.name for p in tool.count_parts(tool.build_on_meta(cfg), 64, 64)]
    assert [name for name in names if 'mask' not in name] == without
    assert len(names) == len(without) + 3


def test_command_line(tool, capsys):
    config = str(ROOT / 'configs/cls/unireplknet_a_in1k.py')
    tool.main([config, '--shape', '96', '64', '--cfg-options', 'model.head.num_classes=10'])
    text = capsys.readouterr().out
    assert 'deploy form, 96x64' in text
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ['backbone', 'head', 'whole']


@pytest.mark.parametrize('shape', [['0'], ['32', '32', '3']])
def test_bad_shape(tool, capsys, shape):
    with pytest.raises(SystemExit):
        tool.main([str(ROOT / 'configs/cls/unireplknet_a_in1k.py'), '--shape', *shape])
    assert '--shape takes one or two positive numbers' in capsys.readouterr().err


def test_missing_config(tool, capsys):
    with pytest.raises(SystemExit) as exit_info:
        tool.main(['configs/cls/unireplknet_z.py'])
    assert exit_info.value.code == 1
    assert 'configs/cls/unireplknet_z.py does not exist' in capsys.readouterr().err


def test_unknown_input_size_is_named(tool, tmp_path, capsys):
    path = tmp_path / 'config.py'
    path.write_text('model = dict()\n')
    with pytest.raises(SystemExit):
        tool.main([str(path)])
    assert '--shape HEIGHT WIDTH' in capsys.readouterr().err
