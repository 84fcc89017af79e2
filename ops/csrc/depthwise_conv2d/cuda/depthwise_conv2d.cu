// CUDA host functions: checks, device guard, allocation, choice of the kernels.
//
// fp32 runs on the direct kernels, fp16 and bf16 on the tensor cores for the sizes that those serve
// and on the direct kernels otherwise; UNIREPLKNET_CUDA_KERNEL=direct|tensor_core forces one, and
// UNIREPLKNET_CUDA_VARIANTS=seven_rows,prefetch,channels_last asks for ways to compute that nothing
// chooses yet (Variants in shape.cuh). All kernels but those of the variant channels_last work on
// NCHW maps: what is laid out otherwise is copied first, and the output of a channels_last map is
// brought back to channels_last. Nothing here waits for the GPU or allocates but through torch, so
// the calls can be captured in a CUDA graph.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "../checks.h"
#include "direct.cuh"
#include "tensor_core.cuh"

namespace unireplknet::cuda {
namespace {

using torch::headeronly::MemoryFormat;

// Far above what memory can hold in both directions; keeps sums of columns and of rows within 32
// bits.
constexpr int64_t kMaxSide = int64_t{1} << 24;
constexpr int64_t kMaxPlanes = (int64_t{1} << 31) - 1;

Shape make_shape(const char* op, const Tensor& map, int64_t kernel_height, int64_t kernel_width,
                 int64_t dilation) {
  check(
      map.size(2) <= kMaxSide && map.size(3) <= kMaxSide && map.size(0) * map.size(1) <= kMaxPlanes,
      op, ": maps of the shape ", to_text(map),
      " are too large for the CUDA kernels; use F.conv2d");
  return {map.size(0),
          map.size(1),
          static_cast<int>(map.size(2)),
          static_cast<int>(map.size(3)),
          static_cast<int>(kernel_height),
          static_cast<int>(kernel_width),
          static_cast<int>(dilation)};
}

Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_launch(const char* op, cudaError_t error) {
  check(error == cudaSuccess, op,
        ": the CUDA kernel could not be launched: ", cudaGetErrorString(error));
}

template <class T>
bool use_tensor_cores(const char* op, const Shape& shape) {
  const char* variable = std::getenv("UNIREPLKNET_CUDA_KERNEL");
  const std::string wanted = variable ? variable : "";
  check(wanted.empty() || wanted == "direct" || wanted == "tensor_core", op,
        ": UNIREPLKNET_CUDA_KERNEL=", wanted,
        ": set it to direct or tensor_core, or leave it unset");
  if (wanted == "direct") return false;
  const bool possible = sizeof(T) == 2 && tensor_core_supported(shape);
  check(possible || wanted.empty(), op,
        ": UNIREPLKNET_CUDA_KERNEL=tensor_core cannot run here: the tensor-core kernels take "
        "float16 and bfloat16, dilation 1 and "
        "kernel sizes up to ",
        kTensorCoreMaxKernel);
  return possible;
}

Variants wanted_variants(const char* op) {
  const char* variable = std::getenv("UNIREPLKNET_CUDA_VARIANTS");
  const std::string names = variable ? variable : "";
  Variants variants;
  check(parse_variants(names, variants), op, ": UNIREPLKNET_CUDA_VARIANTS=", names,
        ": set it to names among seven_rows, prefetch and channels_last with commas between, or "
        "leave it unset");
  return variants;
}

template <class T>
void run_forward(const char* op, const Shape& shape, const Tensor& map, const Tensor& weight,
                 const std::optional<Tensor>& bias, bool flip, Tensor& out) {
  const auto* x = static_cast<const T*>(map.const_data_ptr());
  const auto* filter = static_cast<const T*>(weight.const_data_ptr());
  const auto* offset = bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
  auto* target = static_cast<T*>(out.mutable_data_ptr());
  const cudaStream_t stream = current_stream(map);
  if constexpr (sizeof(T) == 2) {
    if (use_tensor_cores<T>(op, shape)) {
      return check_launch(op, tensor_core_forward(shape, x, filter, offset, flip, target, stream,
                                                  wanted_variants(op)));
    }
  } else {
    use_tensor_cores<T>(op, shape);  // for its checks
  }
  check_launch(op, direct_forward(shape, x, filter, offset, flip, target, stream));
}

template <class T>
void run_backward_weight(const char* op, const Shape& shape, const Tensor& grad_output,
                         const Tensor& map, Tensor& grad_weight) {
  const auto* grad = static_cast<const T*>(grad_output.const_data_ptr());
  const auto* x = static_cast<const T*>(map.const_data_ptr());
  auto* target = static_cast<T*>(grad_weight.mutable_data_ptr());
  const cudaStream_t stream = current_stream(map);
  const bool tensor_cores = use_tensor_cores<T>(op, shape);
  const Variants variants = wanted_variants(op);
  const size_t bytes = tensor_cores ? tensor_core_backward_weight_workspace(shape, variants)
                                    : direct_backward_weight_workspace<T>(shape, variants);
  Tensor workspace = torch::stable::new_empty(map, {static_cast<int64_t>(bytes / sizeof(float))},
                                              ScalarType::Float);
  auto* sums = static_cast<float*>(workspace.mutable_data_ptr());
  if constexpr (sizeof(T) == 2) {
    if (tensor_cores) {
      return check_launch(
          op, tensor_core_backward_weight(shape, grad, x, target, sums, stream, variants));
    }
  }
  check_launch(op, direct_backward_weight(shape, grad, x, target, sums, stream, variants));
}

// Calls use(T{}) for the element type; T is only a tag.
template <class Use>
void with_dtype(const char* op, ScalarType type, const Use& use) {
  switch (type) {
    case ScalarType::Float:
      return use(float{});
    case ScalarType::Half:
      return use(__half{});
    case ScalarType::BFloat16:
      return use(__nv_bfloat16{});
    default:
      check(false, op, ": dtype ", torch::headeronly::toString(type),
            " is not supported on CUDA: use float32, float16 or bfloat16, or F.conv2d");
  }
}

// Whether the elements lie one after the other in the order N, H, W, C.
bool is_dense_channels_last(const Tensor& map) {
  int64_t expected = 1;
  for (int64_t dimension : {1, 3, 2, 0}) {
    if (map.size(dimension) != 1 && map.stride(dimension) != expected) return false;
    expected *= map.size(dimension);
  }
  return is_channels_last(map);
}

// The convolution of a channels_last map without a copy of it in another layout, which is a
// variant; nothing where it does not suit the call.
template <class T>
std::optional<Tensor> convolve_channels_last(const char* op, const Shape& shape, const Tensor& map,
                                             const Tensor& filter,
                                             const std::optional<Tensor>& bias, bool flip) {
  if constexpr (sizeof(T) == 2) {
    if (!wanted_variants(op).channels_last || !use_tensor_cores<T>(op, shape) ||
        !is_dense_channels_last(map) || map.numel() == 0) {
      return std::nullopt;
    }
    Tensor out = torch::stable::empty(map.sizes(), map.scalar_type(), std::nullopt, map.device(),
                                      std::nullopt, MemoryFormat::ChannelsLast);
    const auto* x = static_cast<const T*>(map.const_data_ptr());
    auto* target = static_cast<T*>(out.mutable_data_ptr());
    if (!tensor_core_channels_last_supported(shape, x, target)) return std::nullopt;
    const auto* offset = bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
    check_launch(op,
                 tensor_core_channels_last(shape, x, static_cast<const T*>(filter.const_data_ptr()),
                                           offset, flip, target, current_stream(map)));
    return out;
  } else {
    return std::nullopt;
  }
}

Tensor convolve(const char* op, const char* map_name, const Tensor& map, const Tensor& weight,
                const std::optional<Tensor>& bias, int64_t dilation, bool flip) {
  check_arguments(op, map_name, map, weight, bias, dilation);
  const Shape shape = make_shape(op, map, weight.size(2), weight.size(3), dilation);
  const torch::stable::accelerator::DeviceGuard guard(map.get_device_index());
  const bool channels_last = is_channels_last(map);
  const Tensor filter = dense(weight);
  std::optional<Tensor> dense_bias;
  if (bias) dense_bias = dense(*bias);
  if (channels_last) {
    std::optional<Tensor> done;
    with_dtype(op, map.scalar_type(), [&](auto tag) {
      done = convolve_channels_last<decltype(tag)>(op, shape, map, filter, dense_bias, flip);
    });
    if (done) return *done;
  }
  const Tensor x = dense(map);
  Tensor out = torch::stable::new_empty(map, map.sizes());
  with_dtype(op, map.scalar_type(), [&](auto tag) {
    if (out.numel() != 0) run_forward<decltype(tag)>(op, shape, x, filter, dense_bias, flip, out);
  });
  return channels_last ? torch::stable::contiguous(out, MemoryFormat::ChannelsLast) : out;
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
  const Shape shape = make_shape(op, x, kernel_size[0], kernel_size[1], dilation);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const std::vector<int64_t> sizes = {x.size(1), 1, kernel_size[0], kernel_size[1]};
  if (x.numel() == 0) return torch::stable::new_zeros(x, sizes);
  const Tensor grad = dense(grad_output), map = dense(x);
  Tensor grad_weight = torch::stable::new_empty(x, sizes);
  with_dtype(op, x.scalar_type(), [&](auto tag) {
    run_backward_weight<decltype(tag)>(op, shape, grad, map, grad_weight);
  });
  return grad_weight;
}

}  // namespace
}  // namespace unireplknet::cuda

STABLE_TORCH_LIBRARY_IMPL(unireplknet, CUDA, m) {
  m.impl("depthwise_conv2d", TORCH_BOX(&unireplknet::cuda::depthwise_conv2d));
  m.impl("depthwise_conv2d_backward_input",
         TORCH_BOX(&unireplknet::cuda::depthwise_conv2d_backward_input));
  m.impl("depthwise_conv2d_backward_weight",
         TORCH_BOX(&unireplknet::cuda::depthwise_conv2d_backward_weight));
}
