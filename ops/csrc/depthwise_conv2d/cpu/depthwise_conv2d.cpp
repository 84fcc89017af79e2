// CPU host functions: checks, allocation, choice of the kernels.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "../../cpu/host.h"
#include "../../cpu/isa.h"
#include "../checks.h"
#include "kernels.h"

namespace unireplknet {
namespace {

// The kernels of the active instruction set.
const Kernels& kernels() {
  switch (active_instruction_set()) {
#ifdef UNIREPLKNET_HAVE_AVX512_BF16
    case InstructionSet::kAvx512Bf16:
      return kernels_avx512_bf16();
#endif
#ifdef UNIREPLKNET_HAVE_AVX512
    case InstructionSet::kAvx512:
      return kernels_avx512();
#endif
#ifdef UNIREPLKNET_HAVE_AVX2
    case InstructionSet::kAvx2:
      return kernels_avx2();
#endif
    default:
      return kernels_portable();
  }
}

Problem make_problem(const char* op, const Tensor& map, int64_t kernel_height, int64_t kernel_width,
                     int64_t dilation) {
  return {map.size(0),   map.size(1),  map.size(2), map.size(3),
          kernel_height, kernel_width, dilation,    to_dtype(op, map.scalar_type())};
}

Tensor empty_with_format_of(const Tensor& map) {
  return torch::stable::empty(map.sizes(), map.scalar_type(), std::nullopt, map.device(),
                              std::nullopt,
                              is_channels_last(map) ? torch::headeronly::MemoryFormat::ChannelsLast
                                                    : torch::headeronly::MemoryFormat::Contiguous);
}

Tensor convolve(const char* op, const char* map_name, const Tensor& map, const Tensor& weight,
                const std::optional<Tensor>& bias, int64_t dilation, bool flip) {
  check_arguments(op, map_name, map, weight, bias, dilation);
  const Problem problem = make_problem(op, map, weight.size(2), weight.size(3), dilation);
  Tensor out = empty_with_format_of(map);
  if (out.numel() == 0) return out;
  const Tensor filter = dense(weight);
  std::optional<Tensor> dense_bias;
  if (bias) dense_bias = dense(*bias);
  kernels().forward(problem, {map.const_data_ptr(), strides_of(map)}, filter.const_data_ptr(),
                    dense_bias ? dense_bias->const_data_ptr() : nullptr, flip,
                    {out.mutable_data_ptr(), strides_of(out)}, parallel_for);
  return out;
}

Tensor depthwise_conv2d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                        int64_t dilation) {
  return convolve("depthwise_conv2d", "x", x, weight, bias, dilation, false);
}

Tensor depthwise_conv2d_backward_input(const Tensor& grad_output, const Tensor& weight,
                                       int64_t dilation) {
  return convolve("depthwise_conv2d_backward_input", "grad_output", grad_output, weight,
                  std::nullopt, dilation, true);
}

Tensor depthwise_conv2d_backward_weight(const Tensor& grad_output, const Tensor& x,
                                        std::vector<int64_t> kernel_size, int64_t dilation) {
  const char* op = "depthwise_conv2d_backward_weight";
  check_backward_weight(op, grad_output, x, kernel_size, dilation);
  const Problem problem = make_problem(op, x, kernel_size[0], kernel_size[1], dilation);
  const std::vector<int64_t> shape = {x.size(1), 1, kernel_size[0], kernel_size[1]};
  if (x.numel() == 0) return torch::stable::new_zeros(x, shape);
  Tensor grad_weight = torch::stable::new_empty(x, shape);
  kernels().backward_weight(problem, {grad_output.const_data_ptr(), strides_of(grad_output)},
                            {x.const_data_ptr(), strides_of(x)}, grad_weight.mutable_data_ptr(),
                            parallel_for);
  return grad_weight;
}

}  // namespace
}  // namespace unireplknet

STABLE_TORCH_LIBRARY_IMPL(unireplknet, CPU, m) {
  m.impl("depthwise_conv2d", TORCH_BOX(&unireplknet::depthwise_conv2d));
  m.impl("depthwise_conv2d_backward_input",
         TORCH_BOX(&unireplknet::depthwise_conv2d_backward_input));
  m.impl("depthwise_conv2d_backward_weight",
         TORCH_BOX(&unireplknet::depthwise_conv2d_backward_weight));
}
