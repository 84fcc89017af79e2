"""ImageNet-22K: ImageNet's folders with 21,841 classes; there is no validation split.

Class folders sorted by name are the labels 0 to 21,840, unless `meta/train.txt` lists files and labels, which
saves the search through 14 million files at every start.
"""

from unireplknet_mm.datasets.layouts.imagenet import ImageNet


class ImageNet22K(ImageNet):
    """As of ImageNet; the demo data have a `val` folder, which no config of the suite reads."""

    name = 'imagenet22k'
    dataset_types = ('ImageNet21k',)  # mmpretrain's name for it
    files = ('train/CLASS/*.JPEG',)
    title = 'ImageNet-22K'


LAYOUT = ImageNet22K()
