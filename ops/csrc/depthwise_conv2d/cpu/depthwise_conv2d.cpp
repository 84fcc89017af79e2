// CPU host functions: checks, allocation, choice of the instruction set.
//
// The compiled sets are named by the macros UNIREPLKNET_HAVE_AVX2, _AVX512, _AVX512_BF16
// (unireplknet_ops/build.py). The best one that the processor has is used;
// UNIREPLKNET_CPU_ISA=portable|avx2|avx512|avx512_bf16 lowers it.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../checks.h"
#include "kernels.h"

namespace unireplknet {
namespace {

struct Isa {
  const char* name;
  bool runs_here;
  const Kernels& (*kernels)();
};

const std::vector<Isa>& compiled_isas() {  // best first
  static const std::vector<Isa> isas = {
#ifdef UNIREPLKNET_HAVE_AVX512_BF16
      {"avx512_bf16",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bf16"),
       kernels_avx512_bf16},
#endif
#ifdef UNIREPLKNET_HAVE_AVX512
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"),
       kernels_avx512},
#endif
#ifdef UNIREPLKNET_HAVE_AVX2
      // Every x86 processor with AVX2 has F16C, which __builtin_cpu_supports of older compilers
      // does not know.
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), kernels_avx2},
#endif
      {"portable", true, kernels_portable},
  };
  return isas;
}

const Isa& choose_isa() {
  const char* wanted = std::getenv("UNIREPLKNET_CPU_ISA");
  std::string names;
  for (const Isa& isa : compiled_isas()) {
    if (!isa.runs_here) continue;
    if (!wanted || !*wanted || isa.name == std::string(wanted)) return isa;
    names += (names.empty() ? "" : ", ") + std::string(isa.name);
  }
  throw std::runtime_error("UNIREPLKNET_CPU_ISA=" + std::string(wanted) +
                           " cannot run here: choose one of " + names);
}

const Isa& active_isa() {
  static const Isa& isa = choose_isa();
  return isa;
}

DType to_dtype(const char* op, ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    default:
      check(false, op, ": dtype ", torch::headeronly::toString(type),
            " is not supported on the CPU: use float32, float64, float16 or bfloat16");
      return DType::kFloat32;
  }
}

Problem make_problem(const char* op, const Tensor& map, int64_t kernel_height, int64_t kernel_width,
                     int64_t dilation) {
  return {map.size(0),   map.size(1),  map.size(2), map.size(3),
          kernel_height, kernel_width, dilation,    to_dtype(op, map.scalar_type())};
}

Strides strides_of(const Tensor& map) {
  return {map.stride(0), map.stride(1), map.stride(2), map.stride(3)};
}

Tensor empty_with_format_of(const Tensor& map) {
  return torch::stable::empty(map.sizes(), map.scalar_type(), std::nullopt, map.device(),
                              std::nullopt,
                              is_channels_last(map) ? torch::headeronly::MemoryFormat::ChannelsLast
                                                    : torch::headeronly::MemoryFormat::Contiguous);
}

Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

void parallel_for(int64_t tasks, void (*body)(int64_t, void*), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [=](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) body(task, context);
  });
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
  active_isa().kernels().forward(problem, {map.const_data_ptr(), strides_of(map)},
                                 filter.const_data_ptr(),
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
  active_isa().kernels().backward_weight(
      problem, {grad_output.const_data_ptr(), strides_of(grad_output)},
      {x.const_data_ptr(), strides_of(x)}, grad_weight.mutable_data_ptr(), parallel_for);
  return grad_weight;
}

std::string cpu_isa() { return active_isa().name; }

}  // namespace
}  // namespace unireplknet

STABLE_TORCH_LIBRARY_IMPL(unireplknet, CPU, m) {
  m.impl("depthwise_conv2d", TORCH_BOX(&unireplknet::depthwise_conv2d));
  m.impl("depthwise_conv2d_backward_input",
         TORCH_BOX(&unireplknet::depthwise_conv2d_backward_input));
  m.impl("depthwise_conv2d_backward_weight",
         TORCH_BOX(&unireplknet::depthwise_conv2d_backward_weight));
}

STABLE_TORCH_LIBRARY_IMPL(unireplknet, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&unireplknet::cpu_isa));
}
