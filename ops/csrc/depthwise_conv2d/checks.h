// Argument checks that the CPU and the CUDA host functions share.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "../checks.h"

namespace unireplknet {

// As in unireplknet_ops/convolution_rules.py.
constexpr int64_t kMaxKernelSize = 63;
constexpr int64_t kMaxDilation = 15;
constexpr int64_t kMaxDilatedKernelSize = 9;  // with dilation > 1, as in the Dilated Reparam Block

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

}  // namespace unireplknet
