// The operators' schemas. Their kernels are registered beside their code: cpu/gelu_grn.cpp; fake
// functions and autograd in Python: unireplknet_ops/feedforward/operators.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(unireplknet, m) {
  m.def(
      "gelu_grn(Tensor x, Tensor? bias, Tensor gamma, Tensor? beta) -> (Tensor output, Tensor "
      "norm)");
  m.def(
      "gelu_grn_backward(Tensor grad_output, Tensor x, Tensor? bias, Tensor gamma, Tensor norm) -> "
      "(Tensor grad_x, Tensor grad_bias, Tensor grad_gamma, Tensor grad_beta)");
}
