"""One way to run a model, ready to be called: form, mode, dtype, layout, compiled, a user's settings."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.measuring.catalogue import Build
from unireplknet_mm.measuring.memory import size_of
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.layers import as_written
from unireplknet_mm.models.whole_model import find_backbones, switch_to_deploy
from unireplknet_ops.dilatedreparam import functional as dilated_reparam
from unireplknet_ops.dispatch import FORCE_VARIABLE
from unireplknet_ops.feedforward import functional as feed_forward

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
FORMS = ('train', 'deploy')
MODES = ('forward', 'step')
LAYOUTS = {'NCHW': torch.contiguous_format, 'channels_last': torch.channels_last}
IMPLEMENTATIONS = ('auto', 'native', 'op')
PYTORCH_ALONE = dict.fromkeys(
    (FORCE_VARIABLE, dilated_reparam.FORCE_VARIABLE, feed_forward.FORCE_VARIABLE), 'native'
)
CONTEXTS = {
    'inference_mode': torch.inference_mode,
    'no_grad': torch.no_grad,
    'grad': contextlib.nullcontext,
}

# Relative 2-norm of the difference from the plain form in float32, beyond which a variant computes something
# else. What rounding leaves: float32 below 1e-5; 16-bit dtypes as in `tests/measuring/test_variants.py`.
OUTPUT_TOLERANCES = {'fp32': 1e-3, 'bf16': 0.1, 'fp16': 2e-2}
GRADIENT_TOLERANCES = {'fp32': 1e-2, 'bf16': 0.3, 'fp16': 0.1}
# A layer's gradient below it, relative to the largest one, may be rounding for the most part: that of a
# depthwise convolution of one position, whose scale the BatchNorm behind it takes out.
SMALLEST_GRADIENTS = {'fp32': 1e-2, 'bf16': 0.1, 'fp16': 0.1}


class Setting(NamedTuple):
    """A setting of a user's that should cost nothing.

    Args:
        apply: changes the model in place, before it is converted and compiled.
        context: of `CONTEXTS`, around the forward pass.
        build: of `CONTEXTS`, around building and converting.
    """

    apply: Callable[[nn.Module], Any] = lambda model: None
    context: str = 'inference_mode'
    build: str = 'grad'


def set_on_backbones(**attributes: Any) -> Callable[[nn.Module], None]:
    """Sets attributes on the UniRepLKNets of a model, as a config would have done."""

    def apply(model: nn.Module) -> None:
        for backbone in _backbones(model):
            for name, value in attributes.items():
                setattr(backbone, name, value)
            backbone.train(backbone.training)

    return apply


def freeze_backbones(model: nn.Module) -> None:
    for backbone in _backbones(model):
        backbone.requires_grad_(False)


def _backbones(model: nn.Module) -> list[UniRepLKNet]:
    backbones = list(find_backbones(model).values())
    if not backbones:
        raise ArgumentError('the model has no UniRepLKNet, whose setting this is')
    return backbones


SETTINGS = {
    '': Setting(),
    'gradients': Setting(context='grad'),
    'no_grad': Setting(context='no_grad'),
    'requires_grad_(False)': Setting(lambda model: model.requires_grad_(False), 'grad'),
    'requires_grad_(False), no_grad': Setting(lambda model: model.requires_grad_(False), 'no_grad'),
    'built in inference_mode': Setting(build='inference_mode'),
    'frozen_stages=1': Setting(set_on_backbones(frozen_stages=1)),
    'frozen_stages=2': Setting(set_on_backbones(frozen_stages=2)),
    'frozen_stages=4': Setting(set_on_backbones(frozen_stages=4)),
    'norm_eval': Setting(set_on_backbones(norm_eval=True)),
    'backbone.requires_grad_(False)': Setting(freeze_backbones),
}


class Variant(NamedTuple):
    """A way to run a model.

    Args:
        model: what the user calls it.
        form: 'train', as built, or 'deploy', everything folded that folds.
        mode: 'forward', inference, or 'step': forward, loss, backward, AdamW.
        batch_size: images.
        size: height and width of an image.
        dtype: of `DTYPES`. Inference converts weights and images, a step runs under autocast.
        layout: of `LAYOUTS`.
        compiled: by `torch.compile`.
        implementation: of the depthwise convolutions, of `IMPLEMENTATIONS`; 'plain' for PyTorch's of
            everything, module by module.
        threads: torch's, on the CPU.
        device: 'cpu' or 'cuda'.
        setting: of `SETTINGS`; '' for none.
    """

    model: str
    form: str = 'deploy'
    mode: str = 'forward'
    batch_size: int = 8
    size: tuple[int, int] = (224, 224)
    dtype: str = 'fp32'
    layout: str = 'NCHW'
    compiled: bool = False
    implementation: str = 'auto'
    threads: int = 1
    device: str = 'cpu'
    setting: str = ''

    def plain(self) -> 'Variant':
        """What it has to agree with: float32, NCHW, torch's own operators, nothing compiled or rearranged.

        For inference the training form; a step of the folded form has other gradients.
        """
        plain = self._replace(dtype='fp32', layout='NCHW', compiled=False, implementation='plain')
        if self.mode == 'forward':
            plain = plain._replace(form='train', setting='gradients')
        return plain


class Prepared:
    """A variant, built and on its device.

    Args:
        variant: what to build.
        build: builds its model.
    """

    def __init__(self, variant: Variant, build: Build):
        setting = SETTINGS[variant.setting]
        self.variant = variant
        with CONTEXTS[setting.build]():
            self.task = build()
            model = self.task.model
            if variant.form == 'deploy':
                model.eval()
                fold(model)
            model.train(variant.mode == 'step')
            setting.apply(model)
            options: dict[str, Any] = dict(memory_format=LAYOUTS[variant.layout])
            if variant.mode == 'forward':
                options['dtype'] = DTYPES[variant.dtype]
            model.to(variant.device, **options)
            batch = self.task.make_batch(variant.batch_size, variant.size, variant.device)
            self.batch = self.task.convert(batch, **options)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.model = torch.compile(model) if variant.compiled else model
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = (
            torch.optim.AdamW(self.trained, lr=1e-6) if variant.mode == 'step' else None
        )
        scaled = variant.mode == 'step' and variant.dtype == 'fp16'
        self.scaler = torch.amp.GradScaler(variant.device, init_scale=2.0**10, enabled=scaled)

    def __call__(self) -> Any:
        """Run it once: the model's result, or the loss of the step."""
        with forced(self.variant.implementation):
            return self._step() if self.optimizer else self._forward(self.task.infer, self.batch)

    def _forward(self, run: Callable[[nn.Module, Any], Any], batch: Any) -> Any:
        with CONTEXTS[SETTINGS[self.variant.setting].context]():
            return run(self.model, batch)

    def _step(self) -> Tensor:
        dtype = DTYPES[self.variant.dtype]
        self.optimizer.zero_grad()
        with torch.autocast(self.variant.device, dtype, enabled=dtype != torch.float32):
            loss = self.task.loss(self.model, self.batch)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def outputs(self) -> list[Tensor]:
        """What is compared, in float32: the outputs, or the loss of a first step and its gradients.

        These are a vector for each layer, so that none hides behind the others. Not one for each parameter:
        a bias in front of a BatchNorm has a gradient of rounding alone. What a model draws, as detectors do
        the proposals of a step, is drawn alike.
        """
        with forced(self.variant.implementation), torch.random.fork_rng():
            torch.manual_seed(0)
            if not self.optimizer:
                # Where gradients are kept, a few images at a time.
                split = self.variant.setting == 'gradients' and isinstance(self.batch, Tensor)
                batches = self.batch.split(4) if split else [self.batch]
                parts = [
                    [tensor.detach().float() for tensor in self._forward(self.task.outputs, batch)]
                    for batch in batches
                ]
                return [torch.cat(part) for part in zip(*parts, strict=True)]
            loss = self._step()
        gradients = [
            [
                p.grad.float().flatten()
                for p in layer.parameters(recurse=False)
                if p.grad is not None
            ]
            for layer in self.task.model.modules()
        ]
        return [loss, *(torch.cat(of_layer) for of_layer in gradients if of_layer)]

    def release_gradients(self) -> None:
        if self.optimizer:
            self.optimizer.zero_grad(set_to_none=True)

    def resident_bytes(self) -> int:
        """Bytes that are there before a call: weights, buffers, the optimizer's state, the batch."""
        tensors = [*self.task.model.parameters(), *self.task.model.buffers()]
        if self.optimizer:
            states = self.optimizer.state.values()
            tensors += [value for state in states for value in state.values()]
        batch = self.batch['inputs'] if isinstance(self.batch, dict) else self.batch
        return size_of([*(t for t in tensors if isinstance(t, Tensor)), batch])


def fold(model: nn.Module) -> None:
    """Fold what folds, in place: by `switch_to_deploy`, or by timm's `reparameterize`."""
    switch_to_deploy(model)
    for module in list(model.modules()):
        if hasattr(module, 'reparameterize'):
            module.reparameterize()


@contextlib.contextmanager
def forced(implementation: str) -> Iterator[None]:
    """Within it, every depthwise convolution of the suite runs on that implementation; 'auto' leaves it.

    'plain' leaves out all compiled operators of the suite, as where their library is not installed, and
    computes the modules as they are written.
    """
    is_plain = implementation == 'plain'
    special = dict(auto={}, plain=PYTORCH_ALONE)
    changes = special.get(implementation, {FORCE_VARIABLE: implementation})
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        with as_written() if is_plain else contextlib.nullcontext():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def difference(actual: list[Tensor], expected: list[Tensor], smallest: float = 0.0) -> float:
    """The largest relative 2-norm of a difference; infinite where numbers, shapes or finiteness differ.

    Args:
        smallest: what a difference is relative to at least, in times the largest norm.
    """
    if [tensor.shape for tensor in actual] != [tensor.shape for tensor in expected]:
        return float('inf')
    norms = [tensor.double().norm() for tensor in expected]
    least = max(1e-30, smallest * max(norms))
    differences = [
        ((a.double() - e.double()).norm() / norm.clamp_min(least)).item()
        for a, e, norm in zip(actual, expected, norms, strict=True)
    ]
    return max(float('inf') if value != value else value for value in differences)


def tolerance(variant: Variant) -> float:
    return (OUTPUT_TOLERANCES if variant.mode == 'forward' else GRADIENT_TOLERANCES)[variant.dtype]


def smallest_norm(variant: Variant) -> float:
    """What its outputs are compared relative to at least, as `difference` takes it."""
    return 0.0 if variant.mode == 'forward' else SMALLEST_GRADIENTS[variant.dtype]
