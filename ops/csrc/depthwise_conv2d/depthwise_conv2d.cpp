// The operators' schemas. Each kernel is registered beside its code: cpu/depthwise_conv2d.cpp,
// cuda/depthwise_conv2d.cu; fake functions, autograd and autocast in Python:
// unireplknet_ops/depthwise/operators.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(unireplknet, m) {
  m.def("depthwise_conv2d(Tensor x, Tensor weight, Tensor? bias=None, int dilation=1) -> Tensor");
  m.def(
      "depthwise_conv2d_backward_input(Tensor grad_output, Tensor weight, int dilation=1) -> "
      "Tensor");
  m.def(
      "depthwise_conv2d_backward_weight(Tensor grad_output, Tensor x, int[] kernel_size, "
      "int dilation=1) -> Tensor");
}
