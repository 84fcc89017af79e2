// The operators' schemas. Their kernels are registered beside their code: cpu/dilated_reparam.cpp;
// fake functions, autograd and autocast in Python: unireplknet_ops/dilatedreparam/operators.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(unireplknet, m) {
  m.def(
      "dilated_reparam(Tensor x, Tensor[] weights, int[] dilations, Tensor[] scales, "
      "Tensor[] shifts, float[] eps) -> (Tensor, Tensor, Tensor)");
  m.def(
      "dilated_reparam_backward(Tensor grad_output, Tensor x, Tensor[] weights, int[] dilations, "
      "Tensor[] scales, Tensor mean, Tensor var, float[] eps) -> "
      "(Tensor, Tensor[], Tensor[], Tensor[])");
}
