"""ImageNet: a folder a class, and a list of files with their labels a split."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unireplknet_mm.configuration import classes_of_heads
from unireplknet_mm.datasets.drawing import DIGIT_NAMES, write_image
from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.drawn import DrawnImage, DrawnLayout, drawn_defaults
from unireplknet_mm.errors import ArgumentError

LIST = 'meta/{split}.txt'


class ImageNet(DrawnLayout):
    """One digit an image; below ten, `num_classes` leaves the last digits out."""

    name = 'imagenet'
    dataset_types = ('ImageNet',)
    files = ('{train,val}/CLASS/*.JPEG', LIST.format(split='{train,val}'))
    title = 'ImageNet-1K'
    source = 'https://image-net.org/download.php'
    defaults = drawn_defaults(size=(500, 375), digits_per_image=(1, 1), digit_size=(0.45, 0.85))
    most_digits = 1

    def check(self, parameters: dict[str, Any]) -> None:
        super().check(parameters)
        if parameters['num_classes'] > 10:
            raise ArgumentError(
                f'num_classes={parameters["num_classes"]} does not fit the layout {self.name}: it '
                'has the ten digits at most, whatever the number of classes of a head is'
            )

    def choose_digits(self, index: int, digits: Sequence[int]) -> Sequence[int]:
        return [digits[index % len(digits)]]

    def write_images(
        self, root: Path, drawn_images: Iterable[DrawnImage], parameters: dict[str, Any]
    ) -> None:
        # Sorted by name the folders are in the order of the labels, as folder-style readers need it.
        names = DIGIT_NAMES[: parameters['num_classes']]
        folders = [f'{digit}_{name}' for digit, name in enumerate(names)]
        lines: dict[str, list[str]] = {split: [] for split in SPLITS}
        for split in SPLITS:
            for folder in folders:
                (root / split / folder).mkdir(parents=True)
        for drawn in drawn_images:
            label = drawn.scene.labels[0]
            name = f'{folders[label]}/{folders[label]}_{drawn.index + 1:08d}.JPEG'
            write_image(root / drawn.split / name, drawn.scene.image)
            lines[drawn.split].append(f'{name} {label}\n')
        for split in SPLITS:
            path = root / LIST.format(split=split)
            path.parent.mkdir(exist_ok=True)
            path.write_text(''.join(lines[split]), encoding='utf-8')

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        return dict(num_classes=min(classes_of_heads(model) | {10}))

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        # With a `split`, mmpretrain would look for files of its own.
        return dict(split='', ann_file=LIST.format(split=split), data_prefix=split)


LAYOUT = ImageNet()
