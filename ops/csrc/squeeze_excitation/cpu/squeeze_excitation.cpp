// CPU host function: checks, allocation, choice of the kernel.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "../../checks.h"
#include "../../cpu/host.h"
#include "../../cpu/isa.h"
#include "kernels.h"

namespace unireplknet {
namespace {

SqueezeExcitationKernel kernel() {
  switch (active_instruction_set()) {
#ifdef UNIREPLKNET_HAVE_AVX512
    case InstructionSet::kAvx512Bf16:
    case InstructionSet::kAvx512:
      return squeeze_excitation_avx512;
#endif
#ifdef UNIREPLKNET_HAVE_AVX2
    case InstructionSet::kAvx2:
      return squeeze_excitation_avx2;
#endif
    default:
      return squeeze_excitation_portable;
  }
}

constexpr const char* kOp = "squeeze_excitation";

// After checks of its shape and dtype.
std::optional<Tensor> dense_bias(const char* name, const std::optional<Tensor>& bias, int64_t count,
                                 const Tensor& x) {
  if (!bias) return std::nullopt;
  check(bias->dim() == 1 && bias->size(0) == count, kOp, ": ", name, " must have the shape (",
        count, "), got ", to_text(*bias));
  check_same(kOp, name, *bias, "x", x);
  return dense(*bias);
}

const void* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

Tensor squeeze_excitation(const Tensor& x, const Tensor& weight1,
                          const std::optional<Tensor>& bias1, const Tensor& weight2,
                          const std::optional<Tensor>& bias2) {
  check_map(kOp, "x", x);
  const int64_t channels = x.size(1);
  check(weight1.dim() == 2 && weight1.size(1) == channels, kOp,
        ": weight1 must have the shape (squeezed, ", channels, "), got ", to_text(weight1));
  const int64_t squeezed = weight1.size(0);
  check(weight2.dim() == 2 && weight2.size(0) == channels && weight2.size(1) == squeezed, kOp,
        ": weight2 must have the shape (", channels, ", ", squeezed, "), got ", to_text(weight2));
  check_same(kOp, "weight1", weight1, "x", x);
  check_same(kOp, "weight2", weight2, "x", x);
  const DType dtype = to_dtype(kOp, x.scalar_type());
  check(dtype != DType::kFloat64, kOp, ": float64 is not supported: use float32");
  const auto vector1 = dense_bias("bias1", bias1, squeezed, x);
  const auto vector2 = dense_bias("bias2", bias2, channels, x);
  check(x.size(2) > 0 && x.size(3) > 0, kOp, ": x has no positions to take the mean of");
  check(squeezed > 0, kOp, ": weight1 has no rows");

  Tensor factor =
      torch::stable::empty({x.size(0), channels}, ScalarType::Float, std::nullopt, x.device(),
                           std::nullopt, torch::headeronly::MemoryFormat::Contiguous);
  if (factor.numel() == 0) return factor;
  const Tensor map = torch::stable::contiguous(x, torch::headeronly::MemoryFormat::ChannelsLast);
  const Tensor matrix1 = dense(weight1), matrix2 = dense(weight2);
  kernel()({x.size(0), x.size(2) * x.size(3), channels, squeezed, dtype, map.const_data_ptr(),
            matrix1.const_data_ptr(), data_or_null(vector1), matrix2.const_data_ptr(),
            data_or_null(vector2), static_cast<float*>(factor.mutable_data_ptr())},
           parallel_for);
  return factor;
}

}  // namespace
}  // namespace unireplknet

STABLE_TORCH_LIBRARY_IMPL(unireplknet, CPU, m) {
  m.impl("squeeze_excitation", TORCH_BOX(&unireplknet::squeeze_excitation));
}
