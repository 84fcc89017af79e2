// CPU host functions: checks, allocation, choice of the kernels.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../../checks.h"
#include "../../cpu/host.h"
#include "../../cpu/isa.h"
#include "kernels.h"

namespace unireplknet {
namespace {

const GeluGrnKernels& kernels() {
  switch (active_instruction_set()) {
#ifdef UNIREPLKNET_HAVE_AVX512
    case InstructionSet::kAvx512Bf16:
    case InstructionSet::kAvx512:
      return kGeluGrnAvx512;
#endif
#ifdef UNIREPLKNET_HAVE_AVX2
    case InstructionSet::kAvx2:
      return kGeluGrnAvx2;
#endif
    default:
      return kGeluGrnPortable;
  }
}

struct Sizes {
  int64_t batch, positions, channels;
};

Sizes check_rows(const char* op, const Tensor& x) {
  check(x.dim() >= 3, op, ": x must have the shape (N, H, W, C) or (N, positions, C), got ",
        to_text(x));
  int64_t positions = 1;
  for (int64_t i = 1; i + 1 < x.dim(); ++i) positions *= x.size(i);
  check(to_dtype(op, x.scalar_type()) != DType::kFloat64, op,
        ": float64 is not supported: use float32");
  return {x.size(0), positions, x.size(x.dim() - 1)};
}

Tensor empty_float32(const Tensor& like, const std::vector<int64_t>& shape) {
  return torch::stable::empty(shape, ScalarType::Float, std::nullopt, like.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::Contiguous);
}

Tensor empty_rows(const Tensor& x) {
  return torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::Contiguous);
}

std::tuple<Tensor, Tensor> gelu_grn(const Tensor& x, const std::optional<Tensor>& bias,
                                    const Tensor& gamma, const std::optional<Tensor>& beta) {
  const char* op = "gelu_grn";
  const Sizes sizes = check_rows(op, x);
  const auto dense_bias = float32_tensor(op, "bias", bias, {sizes.channels});
  const auto dense_gamma = float32_tensor(op, "gamma", gamma, {sizes.channels});
  const auto dense_beta = float32_tensor(op, "beta", beta, {sizes.channels});
  Tensor output = empty_rows(x);
  Tensor norm = empty_float32(x, {sizes.batch, sizes.channels});
  if (x.numel() == 0) return {output, torch::stable::fill_(norm, 0)};
  const Tensor rows = dense(x);
  kernels().forward({sizes.batch, sizes.positions, sizes.channels, to_dtype(op, x.scalar_type()),
                     rows.const_data_ptr(), float32_data(dense_bias), float32_data(dense_gamma),
                     float32_data(dense_beta), output.mutable_data_ptr(),
                     static_cast<float*>(norm.mutable_data_ptr())},
                    parallel_for);
  return {output, norm};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gelu_grn_backward(const Tensor& grad_output,
                                                             const Tensor& x,
                                                             const std::optional<Tensor>& bias,
                                                             const Tensor& gamma,
                                                             const Tensor& norm) {
  const char* op = "gelu_grn_backward";
  const Sizes sizes = check_rows(op, x);
  bool fits = grad_output.dim() == x.dim();
  for (int64_t i = 0; fits && i < x.dim(); ++i) fits = grad_output.size(i) == x.size(i);
  check(fits, op, ": grad_output must have the shape ", to_text(x), " of x, got ",
        to_text(grad_output));
  check_same(op, "grad_output", grad_output, "x", x);
  const auto dense_bias = float32_tensor(op, "bias", bias, {sizes.channels});
  const auto dense_gamma = float32_tensor(op, "gamma", gamma, {sizes.channels});
  const auto dense_norm = float32_tensor(op, "norm", norm, {sizes.batch, sizes.channels});
  Tensor grad_x = empty_rows(x);
  Tensor grad_bias = empty_float32(x, {sizes.channels});
  Tensor grad_gamma = empty_float32(x, {sizes.channels});
  Tensor grad_beta = empty_float32(x, {sizes.channels});
  if (x.numel() == 0) {
    for (Tensor* grad : {&grad_bias, &grad_gamma, &grad_beta}) torch::stable::fill_(*grad, 0);
    return {grad_x, grad_bias, grad_gamma, grad_beta};
  }
  const Tensor rows = dense(x), grad_rows = dense(grad_output);
  kernels().backward({sizes.batch, sizes.positions, sizes.channels, to_dtype(op, x.scalar_type()),
                      grad_rows.const_data_ptr(), rows.const_data_ptr(), float32_data(dense_bias),
                      float32_data(dense_gamma), float32_data(dense_norm),
                      grad_x.mutable_data_ptr(), static_cast<float*>(grad_bias.mutable_data_ptr()),
                      static_cast<float*>(grad_gamma.mutable_data_ptr()),
                      static_cast<float*>(grad_beta.mutable_data_ptr())},
                     parallel_for);
  return {grad_x, grad_bias, grad_gamma, grad_beta};
}

}  // namespace
}  // namespace unireplknet

STABLE_TORCH_LIBRARY_IMPL(unireplknet, CPU, m) {
  m.impl("gelu_grn", TORCH_BOX(&unireplknet::gelu_grn));
  m.impl("gelu_grn_backward", TORCH_BOX(&unireplknet::gelu_grn_backward));
}
