// The operator's schema. Its kernel is registered beside its code: cpu/squeeze_excitation.cpp; fake
// function and autocast in Python: unireplknet_ops/feedforward/operators.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(unireplknet, m) {
  m.def(
      "squeeze_excitation(Tensor x, Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2) "
      "-> Tensor");
}
