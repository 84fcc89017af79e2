"""A confusion matrix as a picture, for `tools/test.py --confusion-matrix`, of images and every modality."""

from pathlib import Path

from matplotlib import pyplot
from mmengine.logging import print_log
from mmpretrain.evaluation import ConfusionMatrix
from torch import Tensor

from unireplknet_mm.files import replacing

MOST_NAMED = 60  # classes whose names fit beside the matrix
MOST_COUNTED = 40  # classes whose counts fit into it


class DrawnConfusionMatrix(ConfusionMatrix):
    """mmpretrain's metric, which gives a picture instead of a number for each pair of classes.

    Args:
        path: of the picture; its extension is one that matplotlib writes.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        self.path = path

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """In the main process, with the results of all."""
        matrix = super().compute_metrics(results)['result']
        classes = (self.dataset_meta or {}).get('classes')
        names = list(classes) if classes and len(classes) == len(matrix) else None
        draw_confusion_matrix(matrix, names, self.path)
        print_log(f'The confusion matrix is in {self.path}.', logger='current')
        return {}


def draw_confusion_matrix(matrix: Tensor, classes: list[str] | None, path: str | Path) -> None:
    """Draw a matrix of counts, (true classes, predicted classes), to a file that is replaced whole."""
    count = len(matrix)
    figure = ConfusionMatrix.plot(
        matrix, include_values=count <= MOST_COUNTED, classes=classes, show=False
    )
    axes = figure.axes[0]
    axes.set_title(f'{matrix.diagonal().sum() / matrix.sum():.1%} of {int(matrix.sum())}', pad=20)
    if count > MOST_NAMED:
        axes.set(xticks=[], yticks=[])
    axes.tick_params('x', rotation=90)
    try:
        with replacing(path, keep_extension=True) as partial:
            figure.savefig(partial, dpi=120, bbox_inches='tight')
    finally:
        pyplot.close(figure)
