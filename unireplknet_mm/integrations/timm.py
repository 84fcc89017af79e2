"""UniRepLKNet in timm: importing this module registers the ten architectures as timm models.

    import timm
    import unireplknet_mm.integrations.timm

    model = timm.create_model('unireplknet_s', pretrained=True, num_classes=10)
    maps = timm.create_model('unireplknet_t', features_only=True, out_indices=(1, 2, 3))
    model = timm.utils.reparameterize_model(model)

The network is the suite's (`models/`), under the names that timm gives to such networks: `stem`,
`stages.i.downsample`, `stages.i.blocks.j`, `head.norm`, `head.fc`. Weights of either kind load on both
sides (`models/timm_names.py`). Neither mmcv nor a toolbox of OpenMMLab is needed.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError, MissingPackageError
from unireplknet_mm.models import UniRepLKNet, UniRepLKNetBlock
from unireplknet_mm.models.architecture import ARCHITECTURES, NUM_STAGES
from unireplknet_mm.models.block_layers import LayerNorm2d
from unireplknet_mm.models.layers import is_faster_channels_last
from unireplknet_mm.models.state_dict import (
    BODY,
    check_architecture,
    find_state_dict,
    refuse_other_structure,
    require_prefix,
    unwrap_names,
)
from unireplknet_mm.models.timm_names import from_timm_names, has_timm_names, to_timm_names
from unireplknet_mm.weights.published import (
    IN1K,
    IN22K,
    IN22K_1K,
    PUBLISHED,
    REPOSITORY,
    PublishedWeights,
)

try:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.layers import NormMlpClassifierHead
    from timm.models import (
        build_model_with_cfg,
        generate_default_cfgs,
        register_model,
        register_notrace_module,
    )
    from timm.models._features import feature_take_indices
except ModuleNotFoundError as error:
    if error.name != 'timm':
        raise
    raise MissingPackageError(
        'timm is not installed: pip install timm, or this package with its extra, unireplknet-mm[timm]'
    ) from None

__all__ = ['TimmUniRepLKNet', 'checkpoint_filter_fn', 'default_cfgs']

# Beside the name of the architecture; the first that an architecture has is its default.
TAGS = {IN1K: 'in1k', IN22K_1K: 'in22k_ft_in1k_384', IN22K: 'in22k'}
NUM_CLASSES = {IN1K: 1000, IN22K_1K: 1000, IN22K: 21841}

# They look at tensors, which torch.fx does not have; a graph names them instead of entering them.
for leaf in (UniRepLKNetBlock, LayerNorm2d):
    register_notrace_module(leaf)


class TimmStage(nn.Module):
    """Downsampling, none in the first stage, and the blocks: (N, C, H, W) -> (N, C', H/2, W/2)."""

    def __init__(self, downsample: nn.Module, blocks: nn.Sequential):
        super().__init__()
        self.downsample = downsample
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class TimmUniRepLKNet(nn.Module):
    """UniRepLKNet with the interface of timm's models: (N, in_chans, H, W) -> (N, num_classes).

    Args:
        arch: as in `UniRepLKNet`.
        in_chans: channels of the input.
        num_classes: outputs of the head; 0 for pooled features, (N, C).
        global_pool: '' (maps instead of vectors), 'avg', 'max' or 'avgmax'.
        drop_rate: dropout before the classifier.
        drop_path_rate, layer_scale_init_value, branches, conv_cfg, deploy, output_stride, extra_structure:
            as in `UniRepLKNet`.
        device, dtype: of the parameters.

    Raises:
        ArgumentError: as in `UniRepLKNet`.
    """

    __jit_unused_properties__ = ('deploy',)

    def __init__(
        self,
        arch: str | dict = 't',
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        branches: dict | None = None,
        conv_cfg: dict | None = dict(type='DepthwiseConv2d'),  # noqa: B006
        deploy: bool = False,
        output_stride: int = 32,
        extra_structure: str = 'se',
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        with contextlib.nullcontext() if device is None else torch.device(device):
            network = UniRepLKNet(
                arch,
                in_chans,
                drop_path_rate=drop_path_rate,
                layer_scale_init_value=layer_scale_init_value,
                branches=branches,
                conv_cfg=conv_cfg,
                deploy=deploy,
                output_stride=output_stride,
                extra_structure=extra_structure,
            )
            self.arch_settings = network.arch_settings
            channels = self.arch_settings['channels']
            self.num_classes = num_classes
            self.in_chans = in_chans
            self.drop_rate = drop_rate
            self.num_features = self.head_hidden_size = channels[-1]
            self.feature_info = [
                dict(num_chs=count, reduction=stride, module=f'stages.{i}')
                for i, (count, stride) in enumerate(zip(channels, network.out_strides, strict=True))
            ]
            self.stem = network.downsample_layers[0]
            downsampling = [nn.Identity(), *network.downsample_layers[1:]]
            self.stages = nn.Sequential(*map(TimmStage, downsampling, network.stages))
            self.head = NormMlpClassifierHead(
                channels[-1],
                num_classes,
                pool_type=global_pool,
                drop_rate=drop_rate,
                norm_layer=HeadNorm,
            )
        self.apply(init_weights)
        self.to(dtype=dtype)
        self.register_load_state_dict_pre_hook(refuse_other_structure)
        self.register_load_state_dict_pre_hook(refuse_other_architecture)

    @property
    def deploy(self) -> bool:
        """Whether the blocks are re-parameterized."""
        return all(m.deploy for m in self.modules() if isinstance(m, UniRepLKNetBlock))

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """GRN's gamma and beta, which timm does not recognise by their four axes."""
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if name.endswith(('.act.1.gamma', '.act.1.beta'))}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = [
            (r'^stages\.(\d+)\.downsample', (0,)),
            (r'^stages\.(\d+)\.blocks\.(\d+)', None),
        ]
        return dict(stem=r'^stem', blocks=r'^stages\.(\d+)' if coarse else blocks)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for module in self.modules():
            if isinstance(module, UniRepLKNetBlock):
                module.with_cp = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in, and with `global_pool` another pooling; the norm between them stays."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        weight = self.stem[0].weight  # older releases of timm leave it on the CPU, in float32
        self.head.fc.to(weight.device, weight.dtype)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The outputs of stages, strides 4 to `output_stride`, and what `forward_features` returns.

        Args:
            x: (N, in_chans, H, W).
            indices: the stages, 0 to 3 or negative; a number means the last ones, None all.
            norm: without effect: the one norm stands behind the pooling.
            stop_early: leave out the stages behind the last of `indices`.
            output_fmt: 'NCHW'.
            intermediates_only: return the outputs of the stages alone.

        Raises:
            ValueError: another `output_fmt`.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        wanted, last = feature_take_indices(len(self.stages), indices)
        intermediates = []
        is_converted = is_faster_channels_last(x)
        x = self.stem(x.contiguous(memory_format=torch.channels_last) if is_converted else x)
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in wanted:
                intermediates.append(x.contiguous() if is_converted else x)
        if intermediates_only:
            return intermediates
        return x.contiguous() if is_converted else x, intermediates

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the stages behind the last of `indices`, and the head, which does not fit another stage."""
        wanted, last = feature_take_indices(len(self.stages), indices)
        is_shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_norm or is_shortened:
            self.head.norm = nn.Identity()
        if is_shortened:
            self.num_features = self.head_hidden_size = self.feature_info[last]['num_chs']
            self.head.in_features = self.head.num_features = self.num_features
        if prune_head or is_shortened:
            self.reset_classifier(0, '')
        return wanted

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> the last stage's map, (N, num_features, H/s, W/s), s the output stride."""
        if torch.jit.is_scripting() or not is_faster_channels_last(x):
            return self.stages(self.stem(x))
        return self.stages(self.stem(x.contiguous(memory_format=torch.channels_last))).contiguous()

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool, norm and, but for `pre_logits`, the classifier."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class HeadNorm(LayerNorm2d):
    """The norm behind the pooling, with the epsilon of the published network."""

    def __init__(self, num_features: int, **kwargs: Any):
        super().__init__(num_features, eps=1e-6, **kwargs)


def init_weights(module: nn.Module) -> None:
    """As the authors': truncated normal with a deviation of 0.02, biases 0.

    Without memory (`device='meta'`) there is nothing to set, and torch would take most of a build for it.
    """
    if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def checkpoint_filter_fn(checkpoint: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Weights of any form that the suite knows, by the names of `model`, checked against its architecture.

    Args:
        checkpoint: the authors' files, MMEngine's of a classifier, detector or segmenter, timm's own.
        model: a `TimmUniRepLKNet`.

    Raises:
        CheckpointError: they are of another network, architecture or structure.
    """
    state_dict = unwrap_names(find_state_dict(checkpoint))
    prefix = require_prefix(state_dict)
    raw = {n[len(prefix) :]: value for n, value in state_dict.items() if n.startswith(prefix)}
    if prefix:  # mmpretrain's classifier has its linear layer outside
        fc = {n: value for n, value in state_dict.items() if n.startswith('head.fc.')}
        raw |= {n.replace('.fc', ''): value for n, value in fc.items()}
    raw = {n: value for n, value in raw.items() if n.startswith((*BODY, 'norm.', 'head.'))}
    refuse_other_structure(model, raw, '')
    check_architecture(raw, model.arch_settings)
    return to_timm_names(raw)


def _cfg(weights: PublishedWeights | None = None) -> dict[str, Any]:
    """What timm wants to know of one file; of none, for an architecture without weights."""
    size = int(weights.resolution) if weights else 224
    cfg = dict(
        num_classes=NUM_CLASSES[weights.dataset] if weights else 1000,
        input_size=(3, size, size),
        pool_size=(size // 32, size // 32),
        interpolation='bicubic',
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv='stem.0',
        classifier='head.fc',
        paper_name='Scaling Up Your Kernels',
        paper_ids='arXiv:2410.08049',
        origin_url='https://github.com/AILab-CVC/UniRepLKNet',
        license='apache-2.0',
    )
    if size >= 384:  # as the authors test: warped, uncropped
        cfg |= dict(crop_pct=1.0, crop_mode='squash')
    if weights:
        cfg |= dict(hf_hub_id=REPOSITORY, hf_hub_filename=weights.file_name)
    return cfg


def _published_cfgs() -> dict[str, dict[str, Any]]:
    cfgs = {
        f'unireplknet_{weights.arch}.{tag}': _cfg(weights)
        for dataset, tag in TAGS.items()
        for weights in PUBLISHED.values()
        if weights.dataset == dataset
    }
    for arch in ARCHITECTURES.keys() - {weights.arch for weights in PUBLISHED.values()}:
        cfgs[f'unireplknet_{arch}.untrained'] = _cfg()
    return cfgs


default_cfgs = generate_default_cfgs(_published_cfgs())


def _check_indices(out_indices: int | Iterable[int] | None) -> None:
    """See that there are these stages, whose absence timm answers with a bare IndexError."""
    if isinstance(out_indices, Iterable):
        out_indices = list(out_indices)
        if not all(-NUM_STAGES <= index < NUM_STAGES for index in out_indices):
            raise ArgumentError(
                f'out_indices={out_indices}: the stages are 0 to {NUM_STAGES - 1}, or {-NUM_STAGES} to -1'
            )


def refuse_other_architecture(
    model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *args: Any
) -> None:
    """Refuse weights of another architecture, by its name, where torch would list all their shapes.

    timm loads `checkpoint_path` without `checkpoint_filter_fn`. This is a pre-hook of `load_state_dict`.

    Raises:
        CheckpointError: they are of another architecture.
    """
    own = {n[len(prefix) :]: value for n, value in state_dict.items() if n.startswith(prefix)}
    if has_timm_names(own):
        check_architecture(from_timm_names(own), model.arch_settings)


def _register(arch: str) -> None:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        _check_indices(kwargs.get('out_indices'))
        return build_model_with_cfg(
            TimmUniRepLKNet,
            create.__name__,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg=dict(out_indices=(0, 1, 2, 3), flatten_sequential=True),
            **{'arch': arch, **kwargs},
        )

    create.__name__ = create.__qualname__ = f'unireplknet_{arch}'
    create.__doc__ = f'UniRepLKNet-{arch.upper()} (Table 4). Arguments: as `TimmUniRepLKNet`.'
    globals()[create.__name__] = register_model(create)


for architecture in ARCHITECTURES:
    _register(architecture)
