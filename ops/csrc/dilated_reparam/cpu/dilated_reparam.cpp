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

using Tensors = std::vector<Tensor>;

const DilatedReparamKernels& kernels() {
  switch (active_instruction_set()) {
#ifdef UNIREPLKNET_HAVE_AVX512
    case InstructionSet::kAvx512Bf16:
    case InstructionSet::kAvx512:
      return dilated_reparam_avx512();
#endif
#ifdef UNIREPLKNET_HAVE_AVX2
    case InstructionSet::kAvx2:
      return dilated_reparam_avx2();
#endif
    default:
      return dilated_reparam_portable();
  }
}

// Checks the arguments that both operators have, and holds what their branches point to.
class Branches {
 public:
  Branches(const char* op, const Tensor& x, const Tensors& weights,
           const std::vector<int64_t>& dilations, const Tensors& scales,
           const std::vector<double>& eps) {
    check_map(op, "x", x);
    const int64_t channels = x.size(1);
    check(!weights.empty(), op, ": weights is empty");
    check(dilations.size() == weights.size() && scales.size() == weights.size() &&
              eps.size() == weights.size(),
          op, ": weights, dilations, scales and eps must have one entry a branch");
    for (size_t i = 0; i < weights.size(); ++i) {
      const Tensor& weight = weights[i];
      check(weight.dim() == 4 && weight.size(0) == channels && weight.size(1) == 1 &&
                weight.size(2) == weight.size(3) && weight.size(2) % 2 == 1,
            op, ": a weight must have the shape (", channels, ", 1, k, k) with an odd k, got ",
            to_text(weight));
      check(dilations[i] >= 1, op, ": a dilation must be at least 1, got ", dilations[i]);
      branch.push_back({weight.size(2), dilations[i], vector_of(op, "a weight", weight),
                        checked(op, "a scale", scales[i], channels), nullptr, eps[i], nullptr,
                        nullptr, nullptr, nullptr, nullptr});
    }
  }

  const float* checked(const char* op, const char* name, const Tensor& vector, int64_t channels) {
    check(vector.dim() == 1 && vector.size(0) == channels, op, ": ", name, " must have the shape (",
          channels, "), got ", to_text(vector));
    return vector_of(op, name, vector);
  }

  std::vector<ReparamBranch> branch;

 private:
  const float* vector_of(const char* op, const char* name, const Tensor& tensor) {
    check(tensor.scalar_type() == ScalarType::Float, op, ": ", name, " has dtype ",
          torch::headeronly::toString(tensor.scalar_type()), ", not float32");
    held_.push_back(dense(tensor));
    return static_cast<const float*>(held_.back().const_data_ptr());
  }

  Tensors held_;
};

DType checked_dtype(const char* op, const Tensor& x) {
  const DType dtype = to_dtype(op, x.scalar_type());
  check(dtype != DType::kFloat64, op, ": float64 is not supported: use float32");
  return dtype;
}

DilatedReparam make_problem(const Tensor& x, DType dtype,
                            const std::vector<ReparamBranch>& branch) {
  return {x.size(0),
          x.size(1),
          x.size(2),
          x.size(3),
          dtype,
          branch.data(),
          static_cast<int64_t>(branch.size()),
          {x.const_data_ptr(), strides_of(x)}};
}

Tensor empty_with_format_of(const Tensor& x) {
  return torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                              is_channels_last(x) ? torch::headeronly::MemoryFormat::ChannelsLast
                                                  : torch::headeronly::MemoryFormat::Contiguous);
}

Tensor empty_floats(const Tensor& x, const std::vector<int64_t>& shape) {
  return torch::stable::new_empty(x, shape, ScalarType::Float);
}

std::tuple<Tensor, Tensor, Tensor> dilated_reparam(const Tensor& x, Tensors weights,
                                                   std::vector<int64_t> dilations, Tensors scales,
                                                   Tensors shifts, std::vector<double> eps) {
  const char* op = "dilated_reparam";
  Branches branches(op, x, weights, dilations, scales, eps);
  const int64_t channels = x.size(1), count = static_cast<int64_t>(weights.size());
  check(shifts.size() == weights.size(), op, ": shifts must have one entry a branch");
  const DType dtype = checked_dtype(op, x);
  check(x.numel() > channels, op,
        ": batch statistics need more than one value a channel, got x of the shape ", to_text(x));
  Tensor out = empty_with_format_of(x);
  Tensor mean = empty_floats(x, {count, channels});
  Tensor var = empty_floats(x, {count, channels});
  for (int64_t i = 0; i < count; ++i) {
    ReparamBranch& branch = branches.branch[i];
    branch.shift = branches.checked(op, "a shift", shifts[i], channels);
    branch.mean = static_cast<float*>(mean.mutable_data_ptr()) + i * channels;
    branch.var = static_cast<float*>(var.mutable_data_ptr()) + i * channels;
  }
  kernels().forward(make_problem(x, dtype, branches.branch),
                    {out.mutable_data_ptr(), strides_of(out)}, parallel_for);
  return {out, mean, var};
}

std::tuple<Tensor, Tensors, Tensors, Tensors> dilated_reparam_backward(
    const Tensor& grad_output, const Tensor& x, Tensors weights, std::vector<int64_t> dilations,
    Tensors scales, const Tensor& mean, const Tensor& var, std::vector<double> eps) {
  const char* op = "dilated_reparam_backward";
  Branches branches(op, x, weights, dilations, scales, eps);
  const int64_t channels = x.size(1), count = static_cast<int64_t>(weights.size());
  const DType dtype = checked_dtype(op, x);
  bool fits = grad_output.dim() == 4;
  for (int64_t i = 0; fits && i < 4; ++i) fits = grad_output.size(i) == x.size(i);
  check(fits, op, ": grad_output must have the shape ", to_text(x), " of x, got ",
        to_text(grad_output));
  check_same(op, "grad_output", grad_output, "x", x);
  check(x.numel() > 0, op, ": x is empty");
  for (const Tensor& statistic : {mean, var}) {
    check(statistic.dim() == 2 && statistic.size(0) == count && statistic.size(1) == channels &&
              statistic.scalar_type() == ScalarType::Float && statistic.is_contiguous(),
          op, ": mean and var must be those of dilated_reparam");
  }
  Tensor grad_x = empty_with_format_of(x);
  Tensors grad_weights, grad_scales, grad_shifts;
  for (int64_t i = 0; i < count; ++i) {
    ReparamBranch& branch = branches.branch[i];
    grad_weights.push_back(empty_floats(x, {channels, 1, branch.size, branch.size}));
    grad_scales.push_back(empty_floats(x, {channels}));
    grad_shifts.push_back(empty_floats(x, {channels}));
    branch.grad_weight = static_cast<float*>(grad_weights.back().mutable_data_ptr());
    branch.grad_scale = static_cast<float*>(grad_scales.back().mutable_data_ptr());
    branch.grad_shift = static_cast<float*>(grad_shifts.back().mutable_data_ptr());
    // Read only.
    branch.mean = static_cast<float*>(const_cast<void*>(mean.const_data_ptr())) + i * channels;
    branch.var = static_cast<float*>(const_cast<void*>(var.const_data_ptr())) + i * channels;
  }
  kernels().backward(make_problem(x, dtype, branches.branch),
                     {grad_output.const_data_ptr(), strides_of(grad_output)},
                     {grad_x.mutable_data_ptr(), strides_of(grad_x)}, parallel_for);
  return {grad_x, grad_weights, grad_scales, grad_shifts};
}

}  // namespace
}  // namespace unireplknet

STABLE_TORCH_LIBRARY_IMPL(unireplknet, CPU, m) {
  m.impl("dilated_reparam", TORCH_BOX(&unireplknet::dilated_reparam));
  m.impl("dilated_reparam_backward", TORCH_BOX(&unireplknet::dilated_reparam_backward));
}
