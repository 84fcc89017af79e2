// Argument checks that the CPU and the CUDA host functions share. Each failure names the value and
// the way out.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace unireplknet {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kMaxKernelSize = 63;
constexpr int64_t kMaxDilation = 15;
constexpr int64_t kMaxDilatedKernelSize = 9;  // with dilation > 1, as in the Dilated Reparam Block

// Throws std::runtime_error, which reaches Python as RuntimeError, without a source location in
// front.
template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

inline std::string to_text(const Tensor& tensor) {
  std::ostringstream text;
  text << '(';
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << ')';
  return text.str();
}

inline void check_map(const char* op, const char* name, const Tensor& map) {
  check(map.dim() == 4, op, ": ", name, " must have the shape (N, C, H, W), got ", to_text(map));
}

inline void check_kernel(const char* op, int64_t height, int64_t width, int64_t dilation) {
  check(height % 2 == 1 && width % 2 == 1, op, ": kernel size ", height, "x", width,
        " is even: 'same' padding needs odd sizes; use F.conv2d");
  check(height >= 1 && width >= 1 && height <= kMaxKernelSize && width <= kMaxKernelSize, op,
        ": kernel size ", height, "x", width, " is outside 1 to ", kMaxKernelSize,
        "; use F.conv2d");
  check(dilation >= 1 && dilation <= kMaxDilation, op, ": dilation ", dilation, " is outside 1 to ",
        kMaxDilation, "; use F.conv2d");
  check(dilation == 1 || (height <= kMaxDilatedKernelSize && width <= kMaxDilatedKernelSize), op,
        ": kernel size ", height, "x", width, " with dilation ", dilation,
        " is not supported: dilated kernels go up to ", kMaxDilatedKernelSize, "; use F.conv2d");
}

inline void check_same(const char* op, const char* name, const Tensor& tensor,
                       const char* reference_name, const Tensor& reference) {
  check(tensor.scalar_type() == reference.scalar_type(), op, ": ", name, " has dtype ",
        torch::headeronly::toString(tensor.scalar_type()), " but ", reference_name, " has ",
        torch::headeronly::toString(reference.scalar_type()));
  check(tensor.device() == reference.device(), op, ": ", name, " and ", reference_name,
        " are on different devices");
}

// map (N, C, H, W), weight (C, 1, Kh, Kw), bias (C) or none.
inline void check_arguments(const char* op, const char* map_name, const Tensor& map,
                            const Tensor& weight, const std::optional<Tensor>& bias,
                            int64_t dilation) {
  check_map(op, map_name, map);
  check(weight.dim() == 4 && weight.size(1) == 1 && weight.size(0) == map.size(1), op,
        ": weight must have the shape (C, 1, Kh, Kw) with C = ", map.size(1), ", got ",
        to_text(weight));
  check_kernel(op, weight.size(2), weight.size(3), dilation);
  check_same(op, "weight", weight, map_name, map);
  if (!bias) return;
  check(bias->dim() == 1 && bias->size(0) == map.size(1), op, ": bias must have the shape (",
        map.size(1), "), got ", to_text(*bias));
  check_same(op, "bias", *bias, map_name, map);
}

inline void check_backward_weight(const char* op, const Tensor& grad_output, const Tensor& x,
                                  const std::vector<int64_t>& kernel_size, int64_t dilation) {
  check_map(op, "x", x);
  check_map(op, "grad_output", grad_output);
  for (int64_t i = 0; i < 4; ++i) {
    check(grad_output.size(i) == x.size(i), op, ": grad_output has the shape ",
          to_text(grad_output), " but x has ", to_text(x));
  }
  check_same(op, "grad_output", grad_output, "x", x);
  check(kernel_size.size() == 2, op, ": kernel_size must be (Kh, Kw), got ", kernel_size.size(),
        " numbers");
  check_kernel(op, kernel_size[0], kernel_size[1], dilation);
}

// Whether the map's strides rise in the order C, W, H, N (and it is not NCHW-contiguous as well):
// channels_last, or a slice of such a map, as torch's convolutions judge it.
inline bool is_channels_last(const Tensor& map) {
  if (map.is_contiguous()) return false;
  int64_t least = 1;
  for (int64_t dimension : {1, 3, 2, 0}) {
    if (map.size(dimension) == 1) continue;
    const int64_t stride = map.stride(dimension);
    if (stride < least || (dimension == 1 && stride != 1)) return false;
    least = stride * map.size(dimension);
  }
  return true;
}

}  // namespace unireplknet
