"""The weights that the paper's authors published: which there are, their names and where they are.

A name of `PUBLISHED` may stand wherever MMEngine takes a checkpoint: `checkpoint='unireplknet_t_in1k'`.
"""

import difflib
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

REPOSITORY = 'DingXiaoH/UniRepLKNet'  # on the Hugging Face hub
WEIGHTS_PAGE = f'https://huggingface.co/{REPOSITORY}'
FILE_URL = 'file://'
# Stores of other networks, whose names MMEngine looks up in tables of its own.
ZOOS = ('torchvision://', 'modelzoo://', 'open-mmlab://', 'openmmlab://', 'mmcls://')
TIMM_HUB = (
    'hf-hub:',
    'hf_hub:',
)  # timm's form of a name on the hub, of a repository without a file


class PublishedWeights(NamedTuple):
    """One file that the paper's authors published.

    `resolution` is the input's side in pixels, for detection width × height; `figure` is the paper's,
    None where the weights are meant for fine-tuning only.
    """

    file_name: str
    arch: str
    dataset: str
    resolution: str
    figure: str | None = None

    @property
    def url(self) -> str:
        return f'{WEIGHTS_PAGE}/resolve/main/{self.file_name}'


# Names as in the authors' `unireplknet.py` and README files, figures as in Tables 5 to 7. More detectors
# and segmenters are on WEIGHTS_PAGE; those files' names are not stated there.
IN1K, IN22K, IN22K_1K = 'ImageNet-1K', 'ImageNet-22K', 'ImageNet-22K, then ImageNet-1K'
PUBLISHED: dict[str, PublishedWeights] = {
    'unireplknet_a_in1k': PublishedWeights(
        'unireplknet_a_in1k_224_acc77.03.pth', 'a', IN1K, '224', 'top-1 77.0'
    ),
    'unireplknet_f_in1k': PublishedWeights(
        'unireplknet_f_in1k_224_acc78.58.pth', 'f', IN1K, '224', 'top-1 78.6'
    ),
    'unireplknet_p_in1k': PublishedWeights(
        'unireplknet_p_in1k_224_acc80.23.pth', 'p', IN1K, '224', 'top-1 80.2'
    ),
    'unireplknet_n_in1k': PublishedWeights(
        'unireplknet_n_in1k_224_acc81.64.pth', 'n', IN1K, '224', 'top-1 81.6'
    ),
    'unireplknet_t_in1k': PublishedWeights(
        'unireplknet_t_in1k_224_acc83.21.pth', 't', IN1K, '224', 'top-1 83.2'
    ),
    'unireplknet_s_in1k': PublishedWeights(
        'unireplknet_s_in1k_224_acc83.91.pth', 's', IN1K, '224', 'top-1 83.9'
    ),
    'unireplknet_s_in22k': PublishedWeights('unireplknet_s_in22k_pretrain.pth', 's', IN22K, '224'),
    'unireplknet_b_in22k': PublishedWeights('unireplknet_b_in22k_pretrain.pth', 'b', IN22K, '224'),
    'unireplknet_l_in22k': PublishedWeights('unireplknet_l_in22k_pretrain.pth', 'l', IN22K, '192'),
    'unireplknet_xl_in22k': PublishedWeights(
        'unireplknet_xl_in22k_pretrain.pth', 'xl', IN22K, '192'
    ),
    'unireplknet_s_in22k_to_in1k': PublishedWeights(
        'unireplknet_s_in22k_to_in1k_384_acc86.44.pth', 's', IN22K_1K, '384', 'top-1 86.4'
    ),
    'unireplknet_b_in22k_to_in1k': PublishedWeights(
        'unireplknet_b_in22k_to_in1k_384_acc87.40.pth', 'b', IN22K_1K, '384', 'top-1 87.4'
    ),
    'unireplknet_l_in22k_to_in1k': PublishedWeights(
        'unireplknet_l_in22k_to_in1k_384_acc87.88.pth', 'l', IN22K_1K, '384', 'top-1 87.9'
    ),
    'unireplknet_xl_in22k_to_in1k': PublishedWeights(
        'unireplknet_xl_in22k_to_in1k_384_acc87.96.pth', 'xl', IN22K_1K, '384', 'top-1 88.0'
    ),
    'cascade_unireplknet_t_in1k': PublishedWeights(
        'casc_mask_rcnn_unireplknet_t_in1k_3x_coco_ap51.75.pth',
        't',
        'COCO 2017',
        '1280×800',
        'box AP 51.8, mask AP 44.9',
    ),
    'cascade_unireplknet_xl_in22k': PublishedWeights(
        'casc_mask_rcnn_unireplknet_xl_in22k_3x_coco_ap56.39.pth',
        'xl',
        'COCO 2017',
        '1280×800',
        'box AP 56.4, mask AP 49.0',
    ),
    'upernet_unireplknet_t_in1k': PublishedWeights(
        'upernet_unireplknet_t_512_160k_ade20k_miou48.56.pth',
        't',
        'ADE20K',
        '512',
        'mIoU 48.6, multi-scale 49.1',
    ),
    'upernet_unireplknet_b_in22k': PublishedWeights(
        'upernet_unireplknet_b_in22k_640_160k_ade20k_miou53.52.pth',
        'b',
        'ADE20K',
        '640',
        'mIoU 53.5, multi-scale 53.9',
    ),
}


def find_published(source: str | os.PathLike) -> PublishedWeights | None:
    """The published file of that name; None for any other name, and where a file of one's own has it."""
    return None if os.path.exists(source) else PUBLISHED.get(str(source))


def is_remote(source: str | os.PathLike) -> bool:
    """Whether weights are to be fetched: from a URL or another store, or by a published name."""
    if str(source).startswith(FILE_URL):
        return False
    return '://' in str(source) or find_published(source) is not None


def local_path(source: str | os.PathLike) -> Path:
    """The path of a local file, which may be given as `file://` or from the user's home, `~`."""
    if str(source).startswith(FILE_URL):
        return Path(url2pathname(urlparse(str(source)).path))
    return Path(source).expanduser()


def where_to_get(path: str | Path) -> str:
    """For a file that is not there: ': download it from URL' for one that the authors published, the name
    that was probably meant for a misspelt one, the form of an address on the hub for timm's, nothing else."""
    for name, weights in PUBLISHED.items():
        if weights.file_name == Path(path).name:
            return f': download it from {weights.url}, or write {name} in its place'
    if str(path).startswith(TIMM_HUB):
        repository = str(path).partition(':')[2].strip('/')
        return f': a file on the hub is written hf://{repository}/FILE'
    if os.sep not in str(path) and not Path(path).suffix:
        close = difflib.get_close_matches(str(path), PUBLISHED, n=3)
        if close:
            return f'; published are {", ".join(close)}'
    return ''
