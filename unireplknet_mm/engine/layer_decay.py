"""Layer-wise learning-rate decay: one optimizer-wrapper constructor for every task.

A pretrained backbone is fine-tuned with smaller steps in its earlier layers. The backbone says
which layer a parameter belongs to (`get_layer_depth`); UniRepLKNet divides itself into 12 layers
between the stem (0) and what follows the last stage (13), as ConvNeXt does. The paper's appendix B
states the learning rates and leaves the decay to the published configs, whose rule this is.

One difference from the published code: it exempts 1-d parameters and biases from weight decay, but
not GRN's gamma and beta, which it stores as (1, 1, 1, C). They scale and shift a normalised
response as those of a norm do, and the code of ConvNeXt V2, where GRN comes from, does not decay
them. They are not decayed here either.
"""

from collections.abc import Callable

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from unireplknet_mm.errors import ArgumentError

UNDECAYED_NAMES = ('bias', 'gamma', 'beta')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rate of a parameter: `lr * decay_rate ** (num_layers + 1 - layer)`.

    Heads and necks, layer `num_layers + 1`, get the full rate. Norms, biases, GRN's gamma and beta
    and all other 1-d parameters get no weight decay. A parameter group holds `lr`, `weight_decay`,
    `lr_scale`, `layer_id` and `param_names`; a table of the layers goes to the log.

    The model is, or has anywhere in it, a backbone with `get_layer_depth(param_name, prefix) -> (layer,
    number of layers)`, mmpretrain's convention, which counts the stem and the heads as layers too.

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper; its `optimizer` states `lr`.
        paramwise_cfg: `decay_rate`, in (0, 1] (default 1: the full rate in every layer), and
            `num_layers`, the layers of the backbone between stem and heads (default: what the
            backbone says; another number is an error).

    Raises:
        ArgumentError: `lr` is missing, `paramwise_cfg` has another key, a value is out of range, no part
            of the model has `get_layer_depth`.

    Example::

        optim_wrapper = dict(
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(decay_rate=0.8, num_layers=12))
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        # The base class skips `add_params` for an empty config, hence the default in writing.
        super().__init__(optim_wrapper_cfg, {'decay_rate': 1.0, **(paramwise_cfg or {})})

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        unknown = sorted(set(self.paramwise_cfg) - {'decay_rate', 'num_layers'})
        if unknown:
            raise ArgumentError(
                f'paramwise_cfg of {type(self).__name__} takes decay_rate and num_layers, not '
                f'{", ".join(unknown)} (norms, biases and 1-d parameters are never decayed)'
            )
        decay_rate = self.paramwise_cfg['decay_rate']
        if not isinstance(decay_rate, (int, float)) or not 0 < decay_rate <= 1:
            raise ArgumentError(f'decay_rate must lie in (0, 1], got {decay_rate!r}')
        if self.base_lr is None:
            raise ArgumentError(f'{type(self).__name__} needs lr in the config of the optimizer')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Append to `params` one group for each layer, with and without weight decay."""
        get_layer_depth = self._find_layer_depth(module)
        decay_rate = self.paramwise_cfg['decay_rate']
        groups = {}
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            layer_id, num_layers = get_layer_depth(name)
            self._check_num_layers(num_layers - 2)
            decayed = param.ndim > 1 and name.rpartition('.')[2] not in UNDECAYED_NAMES
            if (layer_id, decayed) not in groups:
                lr_scale = decay_rate ** (num_layers - 1 - layer_id)
                group = dict(params=[], param_names=[], layer_id=layer_id)
                group.update(lr_scale=lr_scale, lr=lr_scale * self.base_lr)
                if not decayed:
                    group['weight_decay'] = 0.0
                elif self.base_wd is not None:
                    group['weight_decay'] = self.base_wd
                groups[layer_id, decayed] = group
            groups[layer_id, decayed]['params'].append(param)
            groups[layer_id, decayed]['param_names'].append(name)
        params.extend(groups[key] for key in sorted(groups))
        print_log(self._describe(groups), logger='current')

    def _find_layer_depth(self, model: nn.Module) -> Callable[[str], tuple[int, int]]:
        """A function that asks the backbone which a parameter belongs to, wherever in the model it is."""
        candidates = {
            f'{name}.' if name else '': module
            for name, module in model.named_modules()
            if hasattr(module, 'get_layer_depth')
        }
        # mmpretrain's classifiers offer it too, and ask their backbone: the innermost counts.
        backbones = {
            prefix: module
            for prefix, module in candidates.items()
            if not any(other != prefix and other.startswith(prefix) for other in candidates)
        }
        if not backbones:
            raise ArgumentError(
                f'{type(self).__name__} asks the backbone which layer a parameter belongs to, but no part '
                f'of {type(model).__name__} has get_layer_depth(param_name, prefix): add it, or use '
                'DefaultOptimWrapperConstructor'
            )

        def get_layer_depth(name: str) -> tuple[int, int]:
            of_parameter = (prefix for prefix in backbones if name.startswith(prefix))
            prefix = next(of_parameter, next(iter(backbones)))  # outside all of them: of the heads
            return backbones[prefix].get_layer_depth(name, prefix)

        return get_layer_depth

    def _check_num_layers(self, backbone_layers: int) -> None:
        asked = self.paramwise_cfg.get('num_layers')
        if asked not in (None, backbone_layers):
            raise ArgumentError(
                f'paramwise_cfg has num_layers={asked}, but the backbone divides itself into '
                f'{backbone_layers} layers'
            )

    def _describe(self, groups: dict[tuple[int, bool], dict]) -> str:
        """A table of the layers, one line each."""
        lines = [
            f'Layer-wise learning rates, decay rate {self.paramwise_cfg["decay_rate"]}',
            f'{"layer":>5} {"lr":>10} {"lr scale":>9} {"parameters":>13} {"not decayed":>12}',
        ]
        sizes = {key: sum(p.numel() for p in group['params']) for key, group in groups.items()}
        for layer_id in sorted({layer_id for layer_id, _ in groups}):
            decayed, undecayed = (sizes.get((layer_id, flag), 0) for flag in (True, False))
            group = groups.get((layer_id, True)) or groups[layer_id, False]
            lines.append(
                f'{layer_id:>5} {group["lr"]:>10.3e} {group["lr_scale"]:>9.4f} '
                f'{decayed + undecayed:>13,} {undecayed:>12,}'
            )
        return '\n'.join(lines)
