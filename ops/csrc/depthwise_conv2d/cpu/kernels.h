// The interface between the host functions (depthwise_conv2d.cpp) and the CPU kernels, one set an
// instruction set.
#pragma once

#include <cstdint>

#include "../../cpu/types.h"

namespace unireplknet {

// Stride 1, padding dilation * (kernel - 1) / 2 on each side; no size is zero.
struct Problem {
  int64_t batch, channels, height, width;
  int64_t kernel_height, kernel_width, dilation;
  DType dtype;
};

struct Kernels {
  // out = conv(x, weight) + bias. weight (C, Kh, Kw) is contiguous, bias (C) may be null; with flip
  // the filter is turned by 180 degrees, which makes this the gradient by the input.
  void (*forward)(const Problem&, const ConstMap& x, const void* weight, const void* bias,
                  bool flip, const Map& out, ParallelFor);
  // grad_weight (C, Kh, Kw), contiguous.
  void (*backward_weight)(const Problem&, const ConstMap& grad_output, const ConstMap& x,
                          void* grad_weight, ParallelFor);
};

const Kernels& kernels_portable();
const Kernels& kernels_avx2();         // AVX2, FMA, F16C
const Kernels& kernels_avx512();       // AVX-512 F, BW, VL, DQ
const Kernels& kernels_avx512_bf16();  // and AVX-512-BF16

}  // namespace unireplknet
