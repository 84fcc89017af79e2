// The direct kernels as the host functions see them: any odd filter up to 63 x 63 with dilation 1,
// up to 9 x 9 with any other. All return the launch's error.
#pragma once

#include "shape.cuh"

namespace unireplknet::cuda {

// out = conv(x, weight) + bias (which may be null); with `flip` on the filter turned by 180
// degrees.
template <class T>
cudaError_t direct_forward(const Shape& shape, const T* x, const T* weight, const T* bias,
                           bool flip, T* out, cudaStream_t stream);

// Bytes of fp32 partial sums that direct_backward_weight needs; they depend on the shape and T
// and the variants only.
template <class T>
size_t direct_backward_weight_workspace(const Shape& shape, Variants variants = {});

template <class T>
cudaError_t direct_backward_weight(const Shape& shape, const T* grad_output, const T* x,
                                   T* grad_weight, float* workspace, cudaStream_t stream,
                                   Variants variants = {});

}  // namespace unireplknet::cuda
