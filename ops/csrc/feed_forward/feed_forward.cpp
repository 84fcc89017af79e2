// The operator's schema. Its kernel is registered beside its code: cpu/feed_forward.cpp; fake
// function, autograd and autocast in Python: unireplknet_ops/feedforward/operators.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(unireplknet, m) {
  m.def(
      "feed_forward(Tensor x, Tensor? input_scale, Tensor weight1, Tensor? bias1, Tensor gamma, "
      "Tensor? beta, Tensor weight2, Tensor? output_scale, Tensor? bias2, Tensor? residual) -> "
      "Tensor");
}
