"""What a trained model is published as: its weights as safetensors, timm's `config.json`, a model card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from unireplknet_mm.configuration import type_name
from unireplknet_mm.errors import MissingPackageError, UserError
from unireplknet_mm.launch.preflight import input_channels, input_size
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.architecture import ARCHITECTURES, describe_architecture
from unireplknet_mm.models.timm_names import to_timm_names
from unireplknet_mm.models.whole_model import find_backbones, find_embedding, find_networks

TASKS = dict(
    mmpretrain='image-classification', mmdet='object-detection', mmseg='image-segmentation'
)
HEAD = {'head.fc.weight', 'head.fc.bias'}
NOT_FIGURES = ('step', 'iter', 'epoch', 'time', 'data_time')


def timm_backbone(cfg: Config, model: nn.Module) -> UniRepLKNet | None:
    """The backbone of a model that timm can build: a published network with one linear layer behind it.

    None for any other model, such as one of another modality, and for a classifier that is fed BGR images,
    which timm does not read.
    """
    backbones = find_backbones(model)
    if (
        find_embedding(model) is not None
        or list(backbones) != ['backbone.']
        or not backbones['backbone.'].gap_before_final_norm
    ):
        return None
    others = {name for name in model.state_dict() if not name.startswith('backbone.')}
    preprocessor = _preprocessor(cfg)
    is_rgb = preprocessor.get('to_rgb') or preprocessor.get('bgr_to_rgb')
    return backbones['backbone.'] if others == HEAD and is_rgb else None


def weights_to_publish(model: nn.Module, timm_names: bool) -> dict[str, Tensor]:
    """A model's state dict for a file of safetensors, under the model's names or timm's."""
    state_dict = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    if timm_names:
        state_dict = to_timm_names(
            {
                name.replace('head.fc.', 'head.').removeprefix('backbone.'): value
                for name, value in state_dict.items()
            }
        )
    # A file of safetensors holds no tensor twice, and none with strides.
    return {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in state_dict.items()
    }


def weights_file(stem: str, weights: dict[str, Tensor]) -> tuple[str, bytes]:
    """The name of a file of safetensors, `STEM-HASH.safetensors`, and its content.

    The hash is the beginning of the content's SHA-256.

    Raises:
        MissingPackageError: safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ModuleNotFoundError:
        raise MissingPackageError(
            'safetensors, which writes the file, is not installed: pip install safetensors'
        ) from None
    content = save(weights, metadata=dict(format='pt'))
    return f'{stem}-{hashlib.sha256(content).hexdigest()[:8]}.safetensors', content


def timm_config(
    cfg: Config, model: nn.Module, file_name: str, classes: list[str] | None = None
) -> dict[str, Any]:
    """What timm reads as `config.json` beside the weights, for `hf-hub:` and `local-dir:`.

    Args:
        cfg: the classifier's config, whose test pipeline says how images are prepared.
        model: built from it, in the structure of the weights; see `timm_backbone`.
        file_name: of the weights.
        classes: names of the classes, where they are known.
    """
    backbone = model.backbone
    known = [name for name in ARCHITECTURES if cfg.model.backbone.get('arch', 't') == name]
    arguments = {
        key: cfg.model.backbone[key]
        for key in ('branches', 'layer_scale_init_value', 'extra_structure')
        if key in cfg.model.backbone
    }
    if not known:
        arguments['arch'] = backbone.arch_settings
    if backbone.deploy:
        arguments['deploy'] = True
    if backbone.output_stride != 32:
        arguments['output_stride'] = backbone.output_stride
    channels = input_channels(cfg, model)
    (height, width), preparation = _preparation(cfg)
    preprocessor = _preprocessor(cfg)
    num_classes = model.head.fc.out_features
    config = dict(
        architecture=f'unireplknet_{known[0] if known else "t"}',
        num_classes=num_classes,
        num_features=backbone.out_channels[-1],
        global_pool='avg',
        model_args=arguments,
        pretrained_cfg=dict(
            hf_hub_filename=file_name,
            num_classes=num_classes,
            input_size=[channels, height, width],
            pool_size=[-(-size // backbone.output_stride) for size in (height, width)],
            mean=[value / 255 for value in preprocessor.get('mean') or [0.0] * channels],
            std=[value / 255 for value in preprocessor.get('std') or [1.0] * channels],
            first_conv='stem.0',
            classifier='head.fc',
            **preparation,
        ),
    )
    if classes and len(classes) == num_classes:
        config['label_names'] = list(classes)
    return config


def _preprocessor(cfg: Config) -> dict[str, Any]:
    return cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}


def _preparation(cfg: Config) -> tuple[tuple[int, int], dict[str, Any]]:
    """The size of test images, height and width, and how they get it, in timm's words."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    steps = {type_name(step): step for step in loader.get('dataset', {}).get('pipeline', [])}
    resize = steps.get('ResizeEdge') or steps.get('Resize') or {}
    preparation = {}
    if 'interpolation' in resize:
        preparation['interpolation'] = resize['interpolation']
    if 'CenterCrop' in steps:
        height, width = _pair(steps['CenterCrop']['crop_size'])
        edge = min(_pair(resize.get('scale', min(height, width))))
        return (height, width), preparation | dict(crop_pct=min(height, width) / edge)
    if 'Resize' in steps:
        width, height = _pair(resize['scale'])
        return (height, width), preparation | dict(crop_pct=1.0, crop_mode='squash')
    return input_size(cfg) or (224, 224), preparation | dict(crop_pct=1.0)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def read_scores(path: str | Path) -> dict[str, float]:
    """The figures that a test ended with: the last line of the JSON file in its work dir.

    Raises:
        UserError: the file cannot be read, or holds no figures.
    """
    try:
        scores = json.loads(Path(path).read_text(encoding='utf-8').strip().splitlines()[-1])
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f'{path} holds no figures of a test ({error}): give the JSON file that tools/test.py leaves '
            'in work_dirs/NAME/TIME/'
        ) from error
    figures = {
        name: value
        for name, value in (scores.items() if isinstance(scores, dict) else ())
        if isinstance(value, int | float) and name not in NOT_FIGURES
    }
    if not figures:
        raise UserError(f'the last line of {path} holds no figures of a test')
    return figures


def model_card(
    cfg: Config,
    model: nn.Module,
    title: str,
    file_name: str,
    *,
    for_timm: bool,
    measured: dict[str, float],
    stated: dict[str, str],
    repository: str = 'OWNER/NAME',
    license_name: str | None = None,
) -> str:
    """`README.md` of a repository on the hub.

    Args:
        title: what the model is called, the stem of its config.
        for_timm: there is a `config.json` of timm's beside it.
        measured: figures of a test of these weights.
        stated: figures that someone else states.
        repository: where it will be.
        license_name: of the weights, as the hub names it; None leaves it out.
    """
    task = TASKS.get(cfg.get('default_scope'))
    header = [
        'library_name: timm' if for_timm else 'library_name: unireplknet-mm',
        *([f'license: {license_name}'] if license_name else []),
        *([f'pipeline_tag: {task}'] if task else []),
        'tags:',
        *(f'- {tag}' for tag in filter(None, ['unireplknet', task])),
    ]
    backbones = find_backbones(model).values()
    networks = ', '.join(describe_architecture(b.arch_settings) for b in backbones)
    foldable = find_networks(model).values()
    is_folded = bool(foldable) and all(network.deploy for network in foldable)
    form = 're-parameterized, for inference' if is_folded else 'the training structure'
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = [
        ('network', networks or type(model).__name__),
        ('form', form),
        ('parameters', f'{parameters / 1e6:.1f} M'),
        *((name, f'{value:.4g} (measured)') for name, value in measured.items()),
        *((name, f'{value} (stated)') for name, value in stated.items()),
    ]
    address = f'hf://{repository}/{file_name}'
    in_timm = [
        'import timm',
        'import unireplknet_mm.integrations.timm',
        '',
        f"model = timm.create_model('hf-hub:{repository}', pretrained=True)",
    ]
    lines = [
        '---',
        *header,
        '---',
        '',
        f'# {title}',
        '',
        f'Weights of the config `{title}` of [UniRepLKNet](https://arxiv.org/abs/2410.08049), as a file of '
        'safetensors.',
        '',
        '| | |',
        '|---|---|',
        *(f'| {name} | {value} |' for name, value in rows),
        '',
        *(['```python', *in_timm, '```', ''] if for_timm else []),
        '```bash',
        f'python tools/test.py {title}.py {address}',
        '```',
        '',
        '```python',
        f"backbone = dict(init_cfg=dict(type='Pretrained', checkpoint='{address}'))",
        '```',
    ]
    return '\n'.join(lines) + '\n'
