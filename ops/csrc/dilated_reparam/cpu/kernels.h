// The interface between the host functions (dilated_reparam.cpp) and the CPU kernels, one set an
// instruction set.
#pragma once

#include <cstdint>

#include "../../cpu/types.h"

namespace unireplknet {

// A convolution of the block and the BatchNorm behind it. Weights are (C, size, size), vectors (C),
// all contiguous.
struct ReparamBranch {
  int64_t size, dilation;
  const float* weight;
  const float *scale, *shift;  // gamma and beta
  double eps;
  float *mean, *var;  // of the batch, var biased: written by forward, read by backward
  float *grad_weight, *grad_scale, *grad_shift;  // written by backward
};

// x and the other maps are (batch, channels, height, width); no size is zero, and neither is
// `branches`.
struct DilatedReparam {
  int64_t batch, channels, height, width;
  DType dtype;  // of the maps; not float64
  const ReparamBranch* branch;
  int64_t branches;
  ConstMap x;
};

struct DilatedReparamKernels {
  void (*forward)(const DilatedReparam&, const Map& out, ParallelFor);
  void (*backward)(const DilatedReparam&, const ConstMap& grad_output, const Map& grad_x,
                   ParallelFor);
};

const DilatedReparamKernels& dilated_reparam_portable();
const DilatedReparamKernels& dilated_reparam_avx2();    // AVX2, FMA, F16C
const DilatedReparamKernels& dilated_reparam_avx512();  // AVX-512 F, BW, VL, DQ

}  // namespace unireplknet
