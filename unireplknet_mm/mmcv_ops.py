"""NMS, RoIAlign and deformable attention for mmcv, where mmcv has no compiled ops.

mmcv keeps its compiled ops in one extension module, `mmcv._ext`, which is the part that most often
fails to install; without it `import mmdet.models` fails. Cascade Mask R-CNN and Mask R-CNN need
two of its ops, and torchvision ships both, compiled, for CPU and CUDA. Multi-scale deformable
attention, which DINO and Mask2Former need, mmcv itself computes with PyTorch's operators on CPUs;
here that is so on GPUs too, and takes more time and memory there than a compiled op.

Importing this module appends a finder to the end of `sys.meta_path`, so Python asks it for
`mmcv._ext` only after every other finder has failed: a compiled mmcv always wins, and mmcv itself
is not imported here.

The module that the finder supplies has mmcv's signatures and results (`nms` with its offset and
order of indices, `roi_align_forward` and the backward functions writing into the caller's buffers).
Every other op can be looked up, since mmcv does so when it is imported, and raises an error when
called.

What differs from the compiled ops, each time by accepting more: non-contiguous inputs give the
right result (the compiled op reads them as if contiguous), float16 and bfloat16 are computed in
float32 (the compiled op has no bfloat16, which `--amp` on a CPU needs), NMS takes boxes of any
floating type. Only `pool_mode='max'` of RoIAlign has no counterpart.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
from torch import Tensor

from unireplknet_mm.errors import UserError

EXTENSION_NAME = 'mmcv._ext'
AVERAGE_POOLING = 1  # mmcv's code for pool_mode='avg'; 0 is 'max'


class MissingOpError(UserError, NotImplementedError):
    """An op of mmcv that only its compiled extension has."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes (n, 4) that greedy suppression keeps, best score first.

    A box (x1, y1, x2, y2) goes when its IoU with a kept one is above `iou_threshold`; widths and
    heights are `x2 - x1 + offset`. Source of the semantics: mmcv's `ops/csrc/pytorch/cpu/nms.cpp`.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    boxes = _to_computable(boxes)
    # mmcv's own sort, so that equal scores come in the order that mmcv gives them; torchvision then
    # only sees ranks, which are exact in float32 up to 2**24 boxes.
    order = scores.sort(0, descending=True).indices
    boxes = boxes[order]
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype, device=boxes.device)
    # mmcv holds the threshold in float32: an IoU of exactly 0.3 is not above it.
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    return order[_torchvision_ops().nms(boxes, ranks, threshold)]


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill `output` (k, c, aligned_height, aligned_width) with the average of each RoI's bins.

    `input` is (n, c, h, w), `rois` (k, 5) holds the index into the batch and x1, y1, x2, y2 in
    image pixels, `spatial_scale` maps those to pixels of `input`. `argmax_y` and `argmax_x`, which
    max pooling would fill, stay untouched.

    Raises:
        MissingOpError: `pool_mode` is 0 (max pooling).
        RuntimeError: on a CPU, an aligned RoI of negative width or height, as in mmcv.
    """
    _check_roi_align(rois, pool_mode, aligned)
    computable = _to_computable(input)
    result = _torchvision_ops().roi_align(
        computable,
        rois.to(computable.dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        sampling_ratio,
        aligned,
    )
    output.copy_(result)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add to `grad_input` (n, c, h, w) the gradient that `grad_output` (k, c, height, width) gives.

    The other arguments and the errors are those of :func:`roi_align_forward`.
    """
    _check_roi_align(rois, pool_mode, aligned)
    computable = _to_computable(grad_output)
    gradient = _torchvision_ops()._roi_align_backward(
        computable,
        rois.to(computable.dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )
    grad_input.add_(gradient)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (arXiv 2010.04159, Eq. 3): (n, queries, heads·channels).

    `value` is (n, positions of all levels, heads, channels), `value_spatial_shapes` (levels, 2) holds
    height and width, `sampling_locations` (n, queries, heads, levels, points, 2) x and y in [0, 1],
    `attention_weights` has their shape without the last. Level starts and `im2col_step`, which say how
    the compiled op divides its work, are not needed.
    """
    arguments = (value, value_spatial_shapes, sampling_locations, attention_weights)
    with torch.no_grad():
        return _deformable_attention(*arguments).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill `grad_value`, `grad_sampling_loc` and `grad_attn_weight` with what `grad_output` gives.

    The other arguments are those of `ms_deform_attn_forward`, which is computed again.
    """
    inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        output = _deformable_attention(inputs[0], value_spatial_shapes, *inputs[1:])
    gradients = torch.autograd.grad(output, inputs, grad_output.to(output.dtype))
    for buffer, gradient in zip(
        (grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True
    ):
        buffer.copy_(gradient)


def get_compiler_version() -> str:
    """What mmcv's environment report prints as `MMCV Compiler`."""
    return 'none: NMS and RoIAlign run on torchvision'


def get_compiling_cuda_version() -> str:
    """What mmcv's environment report prints as `MMCV CUDA Compiler`."""
    return 'none'


def _torchvision_ops():
    import torchvision  # noqa: F401  registers its ops; here, to keep importing this module light

    return torch.ops.torchvision


def _deformable_attention(*arguments: Tensor) -> Tensor:
    # Only mmcv's own module calls this, so it is imported by then.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(*arguments)


def _to_computable(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _check_roi_align(rois: Tensor, pool_mode: int, aligned: bool) -> None:
    if pool_mode != AVERAGE_POOLING:
        raise MissingOpError(_missing_op_message("roi_align with pool_mode='max'"))
    # On a GPU mmcv does not check either: it would have to wait for the device.
    if aligned and rois.device.type == 'cpu' and bool((rois[:, 3:] < rois[:, 1:3]).any()):
        raise RuntimeError('RoIAlign got a RoI of negative width or height (x2 < x1 or y2 < y1).')


def _missing_op_message(op: str) -> str:
    return (
        f'mmcv op `{op}` needs mmcv with its compiled ops, which this installation lacks '
        f'(no module {EXTENSION_NAME}; only NMS, RoIAlign and deformable attention run without it).\n'
        'To build them, in the environment that has torch: pip install --no-build-isolation --no-deps '
        '--no-cache-dir --force-reinstall --no-binary onedl-mmcv onedl-mmcv (needs setuptools>=80, '
        'wheel, ninja, a C++ compiler; for the mmcv that OpenMMLab published, see '
        'https://mmcv.readthedocs.io/en/latest/get_started/build.html)'
    )


PROVIDED = {
    function.__name__: function
    for function in (
        nms,
        roi_align_forward,
        roi_align_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}


def _missing_op(name: str):
    """The `__getattr__` of the module supplied: a function for every name that an op may have."""
    if name.startswith('__'):
        raise AttributeError(f'module {EXTENSION_NAME!r} has no attribute {name!r}')

    def raise_missing_op(*args, **kwargs):
        raise MissingOpError(_missing_op_message(name))

    raise_missing_op.__name__ = name
    return raise_missing_op


class TorchvisionOpsFinder(MetaPathFinder, Loader):
    """Finds and loads `mmcv._ext`, and nothing else, with the functions of this module."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if fullname != EXTENSION_NAME:
            return None
        return ModuleSpec(fullname, self, origin='torchvision')

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = __doc__
        module.__getattr__ = _missing_op
        vars(module).update(PROVIDED)


def install() -> None:
    """Append the finder to `sys.meta_path`, once."""
    if not any(isinstance(finder, TorchvisionOpsFinder) for finder in sys.meta_path):
        sys.meta_path.append(TorchvisionOpsFinder())


install()
