"""What several test files share."""

import collections
import copy
import functools
import hashlib
import json
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn

from unireplknet_mm.launch.folding import build_model
from unireplknet_mm.models import UniRepLKNet

GOLDEN = Path(__file__).parent / 'golden'
SMALL_ARCH = dict(
    depths=(1, 1, 3, 1), channels=(8, 16, 24, 32), kernel_sizes=(3, 13, (13, 5, 7), 19)
)
SMALL_DEMO_DATA = dict(size=(120, 96), images=12, val_images=6)


def load_config(path: Path) -> Config:
    """A config of one's own, of a file that is read once a process: there are more than a hundred."""
    return copy.deepcopy(_read_config(path.resolve()))


@functools.cache
def _read_config(path: Path) -> Config:
    return Config.fromfile(path)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value far from its neutral one, in place.

    A wrong fusion nearly passes on fresh BatchNorms (mean 0, variance 1), zero GRN and tiny layer scale.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = 0.3 * torch.randn(tensor.shape, generator=generator)
        if name.endswith('running_var'):
            noise = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif tensor.dim() == 1 and name.endswith(('weight', 'gamma')):
            noise = 1 + noise
        elif tensor.dim() > 1 and name.endswith('weight'):
            noise = noise / (0.3 * tensor[0].numel() ** 0.5)
        tensor.copy_(noise)
    return module


def save_random_weights(config: Path, path: Path) -> Path:
    """A checkpoint of a config's model, with weights for which a wrong folding shows."""
    model = randomise(build_model(Config.fromfile(config)))
    return save(path, dict(state_dict=model.state_dict(), meta={}))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    actual, expected = actual.detach().double(), expected.detach().double()
    return ((actual - expected).norm() / expected.norm()).item()


def save(path: Path, content, **options) -> Path:
    torch.save(content, path, **options)
    return path


def cached_name(url: str) -> str:
    """The name of a download in the cache: its own for each URL."""
    name = Path(urlparse(url).path)
    return f'{name.stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{name.suffix}'


def fill_hub_cache(cache: Path, repository: str, file: Path, revision: str = 'main') -> Path:
    """Put a file into a cache of huggingface_hub, as a download does; return its path there."""
    folder = cache / f'models--{repository.replace("/", "--")}'
    commit = hashlib.sha1(repository.encode()).hexdigest()
    blob = folder / 'blobs' / hashlib.sha256(file.read_bytes()).hexdigest()
    cached = folder / 'snapshots' / commit / file.name
    reference = folder / 'refs' / revision
    for path in (blob, cached, reference):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(file.read_bytes())
    cached.unlink(missing_ok=True)
    cached.symlink_to(blob)
    reference.write_text(commit)
    return cached


def published_weights(arch: str, structure: str = 'train') -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of the reference; tensor number i is filled with i.

    Each tensor is one stored number, expanded, so that a file is small whatever the arch.
    """
    keys = json.loads((GOLDEN / f'unireplknet_{arch}_keys.json').read_text())[structure]
    return {
        name: torch.tensor(i if name.endswith('num_batches_tracked') else float(i)).expand(shape)
        for i, (name, shape) in enumerate(keys.items())
    }


def without(weights: dict, *prefixes: str) -> dict:
    return {name: value for name, value in weights.items() if not name.startswith(prefixes)}


def detector_weights(arch: str, structure: str = 'train', prefix: str = 'backbone.') -> dict:
    """As in a published detector: four output norms, no final norm, other parts."""
    body = without(published_weights(arch, structure), 'norm.', 'head.')
    for i in range(4):
        channels = len(
            body[f'downsample_layers.{i}.0.weight' if i else 'downsample_layers.0.3.weight']
        )
        body |= {f'norm{i}.{name}': torch.full((channels,), 7.0 + i) for name in ('weight', 'bias')}
    weights = {prefix + name: value for name, value in body.items()}
    return weights | {
        'neck.conv.weight': torch.zeros(2, 2),
        'bbox_head.fc.weight': torch.ones(3, 2),
    }


def assert_body_loaded(backbone: UniRepLKNet, weights: dict[str, torch.Tensor]) -> None:
    loaded = backbone.state_dict()
    body = {name for name in loaded if name.startswith(('stages.', 'downsample_layers.'))}
    assert body
    for name in body:
        assert torch.equal(loaded[name], weights[name].to(loaded[name].dtype)), name


class ToyDetector(BaseModel):
    """A backbone, a neck and a head, for what does not depend on the toolbox."""

    def __init__(self, backbone: UniRepLKNet, num_classes: int = 3):
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Sequential(collections.OrderedDict(conv=nn.Linear(2, 2, bias=False)))
        self.bbox_head = nn.Sequential(collections.OrderedDict(fc=nn.Linear(2, num_classes)))

    def forward(self, inputs=None, mode='tensor', **kwargs):
        x = self.bbox_head(self.neck(torch.ones(1, 2)))
        return dict(loss=x.square().sum()) if mode == 'loss' else [x]


def read_tree(root: Path) -> dict[str, bytes]:
    """The content of every file below a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


SMALL_ZOO = {
    'cls': dict(size='32x32', results=[('Image Classification', {'Top 1 Accuracy': 12.5})]),
    'det': dict(
        size='160x96',
        results=[
            ('Object Detection', {'box AP': 23.4}),
            ('Instance Segmentation', {'mask AP': 21.0}),
        ],
    ),
    'seg': dict(size='256x64', results=[('Semantic Segmentation', {'mIoU': 34.5})]),
}


def write_small_zoo(folder: Path, weights: Path) -> None:
    """An index with the small configs; their weights are `TASK_small.pth` in a folder."""
    models = []
    for task, entry in SMALL_ZOO.items():
        config = folder / 'configs' / task / f'{task}_small.py'
        config.parent.mkdir(parents=True)
        base = Path(__file__).parent / 'data' / 'configs' / config.name
        config.write_text(f'_base_ = {str(base)!r}\n')
        results = [
            dict(Task=name, Dataset='demo', Metrics=metrics) for name, metrics in entry['results']
        ]
        models.append(
            {
                'Name': config.stem,
                'In Collection': 'Small',
                'Config': str(config.relative_to(folder)),
                'Metadata': {'Parameters': 2e6, 'FLOPs': 3e8, 'Input size': entry['size']},
                'Results': results,
                'Weights': str(weights / f'{config.stem}.pth'),
            }
        )
    index = dict(Collections=[dict(Name='Small')], Models=models)
    (folder / 'model-index.yml').write_text(json.dumps(index))  # YAML, too
