// The interface between the host function (squeeze_excitation.cpp) and the CPU kernels, one set an
// instruction set.
#pragma once

#include <cstdint>

#include "../../cpu/types.h"

namespace unireplknet {

// x is (batch, positions, channels), contiguous; it, weights and biases have the dtype. No size is
// zero.
struct SqueezeExcitation {
  int64_t batch, positions, channels, squeezed;
  DType dtype;
  const void* x;
  const void* weight1;  // (squeezed, channels), contiguous
  const void* bias1;    // (squeezed) or null
  const void* weight2;  // (channels, squeezed), contiguous
  const void* bias2;    // (channels) or null
  float* factor;        // (batch, channels)
};

using SqueezeExcitationKernel = void (*)(const SqueezeExcitation&, ParallelFor);

void squeeze_excitation_portable(const SqueezeExcitation&, ParallelFor);
void squeeze_excitation_avx2(const SqueezeExcitation&, ParallelFor);    // AVX2, FMA, F16C
void squeeze_excitation_avx512(const SqueezeExcitation&, ParallelFor);  // AVX-512 F, BW, VL, DQ

}  // namespace unireplknet
