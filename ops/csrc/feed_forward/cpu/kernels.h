// The interface between the host functions (feed_forward.cpp) and the CPU kernels, one set an
// instruction set.
#pragma once

#include <cstdint>

#include "../../cpu/types.h"

namespace unireplknet {

struct MapStrides {  // in elements; one of channel and position is 1
  int64_t image, channel, position;
};

struct ConstMapView {
  const void* data;
  MapStrides strides;
};

// Maps are (batch, channels, positions). Maps and weights have the dtype, vectors are float and may
// be null where that is said. No size is zero.
struct FeedForward {
  int64_t batch, channels, positions, hidden;
  DType dtype;
  ConstMapView x;
  const float* input_scale;   // (batch, channels) or null
  const void* weight1;        // (hidden, channels), contiguous
  const float* bias1;         // (hidden) or null
  const float* gamma;         // (hidden)
  const float* beta;          // (hidden) or null
  const void* weight2;        // (channels, hidden), contiguous
  const float* output_scale;  // (channels) or null
  const float* bias2;         // (channels) or null
  ConstMapView residual;      // its data may be null
  void* out;                  // with the strides of x
};

using FeedForwardKernel = void (*)(const FeedForward&, ParallelFor);

void feed_forward_portable(const FeedForward&, ParallelFor);
void feed_forward_avx2(const FeedForward&, ParallelFor);         // AVX2, FMA, F16C
void feed_forward_avx512(const FeedForward&, ParallelFor);       // AVX-512 F, BW, VL, DQ
void feed_forward_avx512_bf16(const FeedForward&, ParallelFor);  // and AVX-512-BF16

}  // namespace unireplknet
