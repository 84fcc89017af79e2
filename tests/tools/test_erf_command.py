"""tools/erf.py: outputs, weights, what is refused, Ctrl-C."""

import numpy as np
import pytest
import torch
from helpers import save
from mmengine.config import Config
from PIL import Image
from tool_runs import CONFIGS

from unireplknet_mm.measuring import erf
from unireplknet_mm.measuring.catalogue import find_config_model

SMALL = CONFIGS / 'cls_small.py'
QUICK = ('--size', 64, '--num-images', 2, '--device', 'cpu')


def test_every_output(call, tmp_path):
    files = [tmp_path / name for name in ('erf.png', 'table.md', 'scores.npz')]
    options = zip(('--out', '--table', '--scores'), files, strict=True)
    out = call('erf', SMALL, 'slak_t', *QUICK, *(part for option in options for part in option))
    rows = [line for line in out.splitlines() if line.startswith('| ')][1:]
    assert [row.split(' | ')[:4] for row in rows] == [
        ['| cls_small, random weights', '64×64', '2×2', '2'],
        ['| slak_t, random weights', '64×64', '2×2', '2'],
    ]
    picture, table, scores = files
    assert picture.read_bytes().startswith(b'\x89PNG')
    assert out.endswith(table.read_text())
    with np.load(scores) as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {
            'cls_small, random weights': (64, 64),
            'slak_t, random weights': (64, 64),
        }


def test_weights_images_and_linear_scores(call, tmp_path):
    model = find_config_model(Config.fromfile(SMALL))().model
    with torch.no_grad():
        for parameter in model.backbone.stages[3].parameters():
            parameter.zero_()  # the last stage passes its input on
    checkpoint = save(tmp_path / 'weights.pth', dict(state_dict=model.state_dict()))
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / 'grey.png')
    options = (*QUICK, '--linear', '--images', tmp_path)
    table = call('erf', f'{SMALL}={checkpoint}', SMALL, *options)
    trained, random = (line.split(' | ') for line in table.splitlines()[-2:])
    assert 'of scores' in table
    assert trained[0] == '| cls_small, weights.pth' and random[0] == '| cls_small, random weights'
    assert trained[3] == random[3] == '1'  # there is one image
    assert trained[4:] != random[4:]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['unireplknet_tt'], 'Did you mean unireplknet_t'),
        (['unireplknet_a=pretrained'], 'unireplknet_a has no weights by itself'),
        ([f'{SMALL}=pretrained'], 'names no weights to start from: give a file after the ='),
        ([f'{SMALL}=nowhere.pth'], 'nowhere.pth does not exist'),
        ([SMALL, 'unireplknet_tt'], 'Did you mean unireplknet_t'),
        ([SMALL, SMALL], 'a MODEL is named twice'),
        ([SMALL, '--images', 'nowhere'], 'nowhere, which --images names, does not exist'),
        ([SMALL, '--device', 'cuda'], 'torch sees none'),
        ([SMALL, '--out', 'erf.txt'], 'erf.txt: matplotlib writes no such files'),
    ],
)
def test_what_a_user_can_mend(call, monkeypatch, arguments, message):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert message in call('erf', *arguments, status=1)


def test_sizes_are_positive(call):
    assert '0 is not positive' in call('erf', SMALL, '--size', 0, status=2)


def test_control_c_reports_what_there_is(call, monkeypatch, tmp_path, capsys):
    real, calls = erf.contribution_scores, []

    def interrupted(last_map, image):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(last_map, image)

    monkeypatch.setattr(erf, 'contribution_scores', interrupted)
    table = tmp_path / 'table.md'
    call('erf', SMALL, 'slak_t', 'unireplknet_a', *QUICK, '--table', table, status=130)
    rows = [line.split(' | ')[3] for line in table.read_text().splitlines()[4:]]
    assert rows == ['2', '1']
