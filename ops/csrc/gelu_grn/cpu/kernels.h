// The interface between the host functions (gelu_grn.cpp) and the CPU kernels, one set an
// instruction set.
#pragma once

#include <cstdint>

#include "../../cpu/types.h"

namespace unireplknet {

// Maps are (batch, positions, channels), contiguous, and have the dtype; vectors are float. No size
// is zero.
struct GeluGrn {
  int64_t batch, positions, channels;
  DType dtype;
  const void* x;
  const float* bias;   // (channels) or null
  const float* gamma;  // (channels)
  const float* beta;   // (channels) or null
  void* output;
  float* norm;  // (batch, channels)
};

struct GeluGrnBackward {
  int64_t batch, positions, channels;
  DType dtype;
  const void *grad_output, *x;
  const float* bias;   // (channels) or null
  const float* gamma;  // (channels)
  const float* norm;   // (batch, channels)
  void* grad_x;
  float *grad_bias, *grad_gamma, *grad_beta;  // (channels)
};

struct GeluGrnKernels {
  void (*forward)(const GeluGrn&, ParallelFor);
  void (*backward)(const GeluGrnBackward&, ParallelFor);
};

extern const GeluGrnKernels kGeluGrnPortable;
extern const GeluGrnKernels kGeluGrnAvx2;    // AVX2, FMA, F16C
extern const GeluGrnKernels kGeluGrnAvx512;  // AVX-512 F, BW, VL, DQ

}  // namespace unireplknet
