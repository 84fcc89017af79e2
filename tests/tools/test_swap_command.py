"""`tools/swap_backbone.py`: what it prints, writes and refuses."""

import pytest
from mmengine.config import Config

from unireplknet_mm.swapping import locate_config

RESNET = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'


def test_says_what_it_wrote_and_changed(call, tmp_path):
    out = tmp_path / 'mine.py'
    printed = call(
        'swap_backbone', locate_config(RESNET), '--arch', 'a', '--out', out, '--layer-decay', '0.9'
    )
    assert f'Wrote {out}' in printed
    assert 'model.backbone: ResNet-50 -> UniRepLKNet-A' in printed
    assert (
        'Mind: the backbone starts from random weights. --pretrained takes unireplknet_a_in1k'
        in printed
    )
    assert 'Tried on random images and weights' in printed
    assert Config.fromfile(out).optim_wrapper.paramwise_cfg.decay_rate == 0.9


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--arch', 'tt'], "unknown arch 'tt'"),
        (['--output-stride', '16'], '--output-stride is for segmentation'),
        (['--pretrained', 'unireplknet_s_in1k'], 'weights of arch s, and --arch is t'),
    ],
)
def test_refuses_in_one_line_and_writes_nothing(call, tmp_path, arguments, message):
    out = tmp_path / 'mine.py'
    error = call('swap_backbone', locate_config(RESNET), '--out', out, *arguments, status=1)
    assert message in error and len(error.splitlines()) <= 2
    assert not out.exists()


def test_rate_out_of_range_is_refused(call, tmp_path):
    error = call(
        'swap_backbone', RESNET, '--out', tmp_path / 'mine.py', '--layer-decay', '2', status=2
    )
    assert '--layer-decay takes a RATE above 0 and up to 1, not 2' in error
