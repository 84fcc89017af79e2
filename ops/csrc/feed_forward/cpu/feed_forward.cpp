// CPU host function: checks, allocation, choice of the kernel.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "../../checks.h"
#include "../../cpu/host.h"
#include "../../cpu/isa.h"
#include "kernels.h"

namespace unireplknet {
namespace {

FeedForwardKernel kernel() {
  switch (active_instruction_set()) {
#ifdef UNIREPLKNET_HAVE_AVX512_BF16
    case InstructionSet::kAvx512Bf16:
      return feed_forward_avx512_bf16;
#endif
#ifdef UNIREPLKNET_HAVE_AVX512
    case InstructionSet::kAvx512:
      return feed_forward_avx512;
#endif
#ifdef UNIREPLKNET_HAVE_AVX2
    case InstructionSet::kAvx2:
      return feed_forward_avx2;
#endif
    default:
      return feed_forward_portable;
  }
}

constexpr const char* kOp = "feed_forward";

MapStrides dense_strides(const Tensor& map, bool channels_last) {
  const int64_t channels = map.size(1), positions = map.size(2) * map.size(3);
  return {channels * positions, channels_last ? 1 : positions, channels_last ? channels : 1};
}

bool is_dense_channels_last(const Tensor& map) {
  return is_channels_last(map) && (map.size(1) == 1 || map.stride(1) == 1) &&
         (map.size(0) == 1 || map.stride(0) == map.size(1) * map.size(2) * map.size(3)) &&
         (map.size(2) == 1 || map.stride(2) == map.size(1) * map.size(3)) &&
         (map.size(3) == 1 || map.stride(3) == map.size(1));
}

Tensor feed_forward(const Tensor& x, const std::optional<Tensor>& input_scale,
                    const Tensor& weight1, const std::optional<Tensor>& bias1, const Tensor& gamma,
                    const std::optional<Tensor>& beta, const Tensor& weight2,
                    const std::optional<Tensor>& output_scale, const std::optional<Tensor>& bias2,
                    const std::optional<Tensor>& residual) {
  check_map(kOp, "x", x);
  const int64_t channels = x.size(1), positions = x.size(2) * x.size(3);
  check(weight1.dim() == 2 && weight1.size(1) == channels, kOp,
        ": weight1 must have the shape (hidden, ", channels, "), got ", to_text(weight1));
  const int64_t hidden = weight1.size(0);
  check(weight2.dim() == 2 && weight2.size(0) == channels && weight2.size(1) == hidden, kOp,
        ": weight2 must have the shape (", channels, ", ", hidden, "), got ", to_text(weight2));
  check_same(kOp, "weight1", weight1, "x", x);
  check_same(kOp, "weight2", weight2, "x", x);
  const DType dtype = to_dtype(kOp, x.scalar_type());
  check(dtype != DType::kFloat64, kOp, ": float64 is not supported: use float32");
  if (residual) {
    bool fits = residual->dim() == 4;
    for (int64_t i = 0; fits && i < 4; ++i) fits = residual->size(i) == x.size(i);
    check(fits, kOp, ": residual must have the shape ", to_text(x), " of x, got ",
          to_text(*residual));
    check_same(kOp, "residual", *residual, "x", x);
  }
  const auto scale = widened_tensor(kOp, "input_scale", input_scale, {x.size(0), channels}, x);
  const auto dense_bias1 = widened_tensor(kOp, "bias1", bias1, {hidden}, x);
  const auto dense_gamma = widened_tensor(kOp, "gamma", gamma, {hidden}, x);
  const auto dense_beta = widened_tensor(kOp, "beta", beta, {hidden}, x);
  const auto dense_output_scale = widened_tensor(kOp, "output_scale", output_scale, {channels}, x);
  const auto dense_bias2 = widened_tensor(kOp, "bias2", bias2, {channels}, x);

  const bool channels_last = is_channels_last(x);
  Tensor out =
      torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                           channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                         : torch::headeronly::MemoryFormat::Contiguous);
  if (out.numel() == 0) return out;
  check(hidden > 0, kOp, ": weight1 has no rows");

  const auto dense_map = [](const Tensor& map, bool last) {
    return last && is_dense_channels_last(map)
               ? map
               : torch::stable::contiguous(map, last ? torch::headeronly::MemoryFormat::ChannelsLast
                                                     : torch::headeronly::MemoryFormat::Contiguous);
  };
  const Tensor map = dense_map(x, channels_last);
  const Tensor matrix1 = dense(weight1), matrix2 = dense(weight2);
  ConstMapView residual_view{nullptr, {}};
  std::optional<Tensor> residual_map;
  if (residual) {
    const bool last = is_channels_last(*residual);
    residual_map = dense_map(*residual, last);
    residual_view = {residual_map->const_data_ptr(), dense_strides(*residual, last)};
  }
  kernel()({x.size(0),
            channels,
            positions,
            hidden,
            dtype,
            {map.const_data_ptr(), dense_strides(x, channels_last)},
            float32_data(scale),
            matrix1.const_data_ptr(),
            float32_data(dense_bias1),
            float32_data(dense_gamma),
            float32_data(dense_beta),
            matrix2.const_data_ptr(),
            float32_data(dense_output_scale),
            float32_data(dense_bias2),
            residual_view,
            out.mutable_data_ptr()},
           parallel_for);
  return out;
}

}  // namespace
}  // namespace unireplknet

STABLE_TORCH_LIBRARY_IMPL(unireplknet, CPU, m) {
  m.impl("feed_forward", TORCH_BOX(&unireplknet::feed_forward));
}
