"""The weights of a UniRepLKNet by name: where they are in a checkpoint, their form, whether they fit.

The published files, and those that MMEngine and timm write, are taken without a conversion step: a raw
ImageNet file, a classifier, a detector, a segmenter. MMEngine only warns where names or shapes do not
match; here a backbone that does not get all of its weights is an error.
"""

import itertools
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from unireplknet_mm.models.architecture import describe_architecture, read_architecture
from unireplknet_mm.models.timm_names import from_timm_names, has_timm_names
from unireplknet_mm.weights.reading import CheckpointError, load_checkpoint

# Where a checkpoint keeps its state dict: MMEngine and mmcv, the paper's trainer, DeepSpeed, and the
# averages that some trainers store alone.
STATE_DICT_KEYS = (
    'state_dict',
    'model',
    'module',
    'model_ema',
    'state_dict_ema',
    'ema_state_dict',
)
# A name that every UniRepLKNet has, in either structure, and no other network that we know of.
SIGNATURE = 'stages.0.0.pwconv1.1.weight'
BODY = ('downsample_layers.', 'stages.')
STEM = 'downsample_layers.0.0.weight'

# How to tell the weights of other networks, for the error message: the first match counts.
OTHER_NETWORKS = (
    ('RepLKNet', r'\.(large_kernel|pw1\.conv)\.'),
    ('ResNet', r'(^|\.)layer1\.0\.conv1\.weight$'),
    ('Swin Transformer', r'\.relative_position_bias_table$'),
    ('InternImage', r'\.dcn\.'),
    ('ConvNeXt', r'(^|\.)stages\.0\.(0\.(pwconv1|pointwise_conv1)|blocks\.0\.conv_dw)\.weight$'),
    ('vision transformer', r'(^|\.)(cls_token|blocks\.0\.attn\.qkv\.weight)$'),
)


def find_state_dict(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The model's state dict in a checkpoint of any known form, as it is.

    Raises:
        CheckpointError: there are no tensors.
    """
    for key in STATE_DICT_KEYS:
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    if not any(isinstance(value, Tensor) for value in checkpoint.values()):
        raise CheckpointError(f'no weights in the checkpoint: it holds {_some(checkpoint)}')
    return checkpoint


def extract_backbone_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The backbone's weights, by the backbone's own names, out of any checkpoint that has them.

    Args:
        checkpoint: a raw ImageNet file (`{'model': ...}` or the state dict itself), one of timm's, a
            classifier, detector or segmenter (`{'state_dict': {'backbone.*': ...}}`). Of a checkpoint with an
            average of the weights, MMEngine and mmdet 2 store the average under the ordinary names.

    Returns:
        `downsample_layers.*`, `stages.*` and the norms; of a raw file or timm's also `head.*`.

    Raises:
        CheckpointError: there is no UniRepLKNet in it.
    """
    state_dict = unwrap_names(find_state_dict(checkpoint))
    prefix = require_prefix(state_dict)
    return {
        name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)
    }


def unwrap_names(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Without the `module.` of DistributedDataParallel and its like, and timm's names as the published.

    The copies of the weights that mmdet 2 keeps for averaging are left out; the averages themselves have the
    ordinary names there.
    """
    if any(name.startswith('module.') for name in state_dict):
        unwrapped = OrderedDict(
            (name.removeprefix('module.'), value) for name, value in state_dict.items()
        )
        unwrapped._metadata = getattr(state_dict, '_metadata', OrderedDict())
        state_dict = unwrapped
    copies = {f'ema_{name.replace(".", "_")}' for name in state_dict} & state_dict.keys()
    if copies:
        kept = OrderedDict(
            (name, value) for name, value in state_dict.items() if name not in copies
        )
        kept._metadata = getattr(state_dict, '_metadata', OrderedDict())
        state_dict = kept
    return from_timm_names(state_dict) if has_timm_names(state_dict) else state_dict


def find_prefix(state_dict: Mapping[str, Tensor]) -> str | None:
    """What the UniRepLKNet's names start with: '' in a raw file, 'backbone.' in a detector, None without."""
    prefixes = [name[: -len(SIGNATURE)] for name in state_dict if name.endswith(SIGNATURE)]
    if not prefixes:
        return None
    return 'backbone.' if 'backbone.' in prefixes else min(prefixes, key=len)


def require_prefix(state_dict: Mapping[str, Tensor]) -> str:
    """`find_prefix` where there must be one.

    Raises:
        CheckpointError: there is no UniRepLKNet; the message guesses whose weights they are.
    """
    prefix = find_prefix(state_dict)
    if prefix is None:
        raise CheckpointError(f'the weights are not of a UniRepLKNet: {_guess_network(state_dict)}')
    return prefix


def _guess_network(state_dict: Mapping[str, Tensor]) -> str:
    for network, pattern in OTHER_NETWORKS:
        if any(re.search(pattern, name) for name in state_dict):
            return f"they look like a {network}'s ({_some(state_dict)})"
    return f'they are named {_some(state_dict)}'


def _some(names: Mapping[str, Any] | list[str], count: int = 3) -> str:
    shown = ', '.join(itertools.islice(map(str, names), count))
    return f'{shown}, ...' if len(names) > count else shown or 'nothing'


def is_deploy_form(names: Iterable[str]) -> bool:
    """Whether these backbone-named weights are re-parameterized: no BatchNorm is left in the stages.

    The training form has one behind the second linear layer of every block.
    """
    return not any(name.startswith('stages.') and name.endswith('.running_var') for name in names)


def has_folded_units(names: Iterable[str]) -> bool:
    """Whether weights of `ConvolutionUnit`s are re-parameterized: those have a bias, the others a norm."""
    return any(name.endswith('conv.bias') for name in names)


def refuse_other_structure(
    backbone: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *args: Any
) -> None:
    """Refuse re-parameterized weights in a training model and the reverse, with the way out.

    Args:
        backbone: a `UniRepLKNet`; this is a pre-hook of its `load_state_dict`.
        state_dict: weights, the backbone's beginning with `prefix`; without any, nothing is refused.

    Raises:
        CheckpointError: the two forms differ.
    """
    names = [name[len(prefix) :] for name in state_dict if name.startswith(f'{prefix}stages.')]
    if names:
        _refuse_other_form(backbone, is_deploy_form(names))


def refuse_other_units(
    backbone: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *args: Any
) -> None:
    """`refuse_other_structure` for networks of `ConvolutionUnit`s."""
    names = [name for name in state_dict if name.startswith(prefix)]
    if any(name.endswith('conv.weight') for name in names):
        _refuse_other_form(backbone, has_folded_units(names))


def _refuse_other_form(backbone: nn.Module, is_deploy: bool) -> None:
    if is_deploy and not backbone.deploy:
        raise CheckpointError(
            'the weights are re-parameterized (deploy form) and the backbone is in its training form: '
            'build it with deploy=True, or load the weights from training'
        )
    if backbone.deploy and not is_deploy:
        raise CheckpointError(
            'the weights are in the training form and the backbone was built with deploy=True: build it '
            'with deploy=False, load the weights, then call switch_to_deploy()'
        )


def check_backbone_weights(backbone: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Check that every parameter of the stem, the downsampling layers and the stages is there.

    Output norms and heads may differ: raw ImageNet files have one final norm, detectors have four.

    Args:
        backbone: the `UniRepLKNet` to be loaded.
        weights: by the backbone's own names; others are ignored.

    Raises:
        CheckpointError: re-parameterized weights in a training model or the reverse, another arch, other
            kernels or branches, missing or surplus parameters.
    """
    weights = {name: value for name, value in weights.items() if name.startswith(BODY)}
    refuse_other_structure(backbone, weights, '')
    check_architecture(weights, backbone.arch_settings)
    own = {
        name: value
        for name, value in backbone.state_dict().items()
        if name.startswith(BODY) and not name.endswith('num_batches_tracked')
    }
    weights = {
        name: value
        for name, value in weights.items()
        if name in own or not name.endswith('num_batches_tracked')
    }
    differences = compare_weights(weights, own)
    if differences:
        raise CheckpointError(f'the weights do not match the backbone: {differences}')


def check_architecture(weights: Mapping[str, Tensor], wanted: Mapping[str, tuple]) -> None:
    """Check that weights have the depths, channels and kernel sizes of a model's `arch_settings`.

    Raises:
        CheckpointError: they have not.
    """
    found = read_architecture(weights)
    if any(found[key] != wanted[key] for key in ('depths', 'channels')):
        raise CheckpointError(
            f'the weights are of {describe_architecture(found)}, the model is '
            f'{describe_architecture(wanted)}: set `arch` of the backbone, or take other weights'
        )
    if found['kernel_sizes'] != wanted['kernel_sizes']:
        raise CheckpointError(
            f'the weights have kernel sizes {found["kernel_sizes"]}, the model '
            f'{wanted["kernel_sizes"]}: set `arch["kernel_sizes"]` of the backbone'
        )


def compare_weights(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What keeps weights from fitting a model's state dict `own` exactly, in words; '' where they do."""
    missing = [name for name in own if name not in weights]
    surplus = [name for name in weights if name not in own]
    reshaped = [
        f'{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}'
        for name, value in own.items()
        if isinstance(value, Tensor) and name in weights and weights[name].shape != value.shape
    ]
    kinds = (('missing', missing), ('surplus', surplus), ('of another shape', reshaped))
    return '; '.join(f'{len(names)} {kind} ({_some(names)})' for kind, names in kinds if names)


def load_backbone_weights(backbone: nn.Module, path: str, sum_input_channels: bool = False) -> None:
    """Load a backbone from any published form of file: `init_cfg=dict(type='Pretrained', ...)`.

    Args:
        backbone: a `UniRepLKNet`.
        path: a local file or a URL.
        sum_input_channels: as in `sum_stem`, for a backbone of one input channel.

    Raises:
        UserError: the file is missing, damaged, refused or foreign, or its weights are
            of another arch or structure than the backbone.
    """
    checkpoint = load_checkpoint(path)
    try:
        weights = extract_backbone_state_dict(checkpoint)
        if sum_input_channels:
            weights = sum_stem(weights, STEM, backbone.in_channels)
        check_backbone_weights(backbone, weights)
    except CheckpointError as error:
        raise CheckpointError(f'checkpoint {path}: {error}') from None
    own = backbone.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own}
    backbone.load_state_dict(fitting, strict=False)
    anew = sorted({name.split('.')[0] for name in own.keys() - fitting.keys()} - {'stages'})
    unused = sorted({name.split('.')[0] for name in weights.keys() - fitting.keys()})
    summary = f'Loaded {describe_architecture(backbone.arch_settings)} from {path}.'
    if anew:
        summary += f' Not in the file, initialised anew: {", ".join(anew)}.'
    if unused:
        summary += f' Not used: {", ".join(unused)}.'
    print_log(summary, logger='current')


def sum_stem(weights: Mapping[str, Tensor], name: str, in_channels: int) -> dict[str, Tensor]:
    """Weights for one input channel from those for several: the first convolution's, summed over its inputs.

    The maps are those that an input of equal channels gave before, exactly.

    Args:
        weights: names and tensors.
        name: of the first convolution's weight.
        in_channels: of the network that is to be loaded.

    Raises:
        CheckpointError: it takes more than one channel.
    """
    if in_channels != 1:
        raise CheckpointError(
            f'sum_input_channels is for a backbone with in_channels=1, this one has {in_channels}'
        )
    weights = dict(weights)
    if name in weights:
        weights[name] = weights[name].sum(1, keepdim=True)
    return weights


def load_classifier_backbone(backbone: nn.Module, path: str) -> None:
    """Load a backbone from a classifier around the same network, trained with MMEngine.

    Args:
        backbone: of any class, whole or without the last layers of the classifier's.
        path: a local file or a URL.

    Raises:
        UserError: the file is missing, damaged or refused, or lacks one of the backbone's weights.
    """
    own = backbone.state_dict()
    parts = {name.split('.')[0] for name in own}  # without the head, and what is not built
    weights = {
        name.removeprefix('backbone.'): value
        for name, value in find_state_dict(load_checkpoint(path)).items()
        if name.removeprefix('backbone.').split('.')[0] in parts
    }
    differences = compare_weights(weights, own)
    if differences:
        raise CheckpointError(
            f'checkpoint {path}: the weights do not match the backbone: {differences}'
        )
    backbone.load_state_dict(weights)
