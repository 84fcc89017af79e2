"""A picture of which classes are taken for which."""

import pytest
import torch
from matplotlib import pyplot
from mmpretrain.evaluation import ConfusionMatrix
from PIL import Image

from unireplknet_mm.modalities.confusion_matrix import DrawnConfusionMatrix


@pytest.fixture
def drawn(monkeypatch):
    """The matrices and settings that mmpretrain draws, and the axes that come of it."""
    calls = []
    plot = ConfusionMatrix.plot

    def watched(matrix, **settings):
        figure = plot(matrix, **settings)
        calls.append((matrix.tolist(), settings, figure.axes[0]))
        return figure

    monkeypatch.setattr(ConfusionMatrix, 'plot', staticmethod(watched))
    return calls


def evaluate(path, pairs, num_classes, names):
    metric = DrawnConfusionMatrix(path)
    metric.dataset_meta = dict(classes=names)
    metric.process(
        None,
        [
            dict(pred_score=torch.eye(num_classes)[predicted], gt_label=torch.tensor([true]))
            for true, predicted in pairs
        ],
    )
    assert metric.evaluate(len(pairs)) == {}
    return metric


def test_counts_and_names(tmp_path, drawn):
    path = tmp_path / 'matrix.png'
    path.write_text('an earlier one')
    evaluate(path, [(0, 0), (0, 2), (1, 1), (2, 2), (0, 2)], 3, ('a', 'b', 'c'))
    ((matrix, settings, axes),) = drawn
    assert matrix == [[1, 0, 2], [0, 1, 0], [0, 0, 1]]
    assert settings == dict(include_values=True, classes=['a', 'b', 'c'], show=False)
    assert axes.get_title() == '60.0% of 5'
    assert [label.get_text() for label in axes.get_yticklabels()] == ['a', 'b', 'c']
    with Image.open(path) as picture:
        assert min(picture.size) > 500
    assert [file.name for file in tmp_path.iterdir()] == ['matrix.png']
    assert not pyplot.get_fignums()


def test_many_classes_have_no_names(tmp_path, drawn):
    evaluate(tmp_path / 'matrix.svg', [(0, 5), (99, 99)], 100, ('not', 'these'))
    ((_, settings, axes),) = drawn
    assert settings == dict(include_values=False, classes=None, show=False)
    assert not axes.get_yticks().size
    assert (tmp_path / 'matrix.svg').read_text().startswith('<?xml')
