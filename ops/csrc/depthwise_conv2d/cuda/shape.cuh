// The sizes of one convolution, as the host functions hand them to the launch functions of every
// kernel family.
#pragma once

#include "ptx.cuh"

namespace unireplknet::cuda {

// x and out are (batch, channels, height, width), the filter (channels, kernel_height,
// kernel_width), all contiguous; stride 1, zero padding of dilation * (kernel - 1) / 2 on each
// side, so that out has the size of x. Kernel sizes are odd. The host function has checked all
// this, and that no size is zero.
struct Shape {
  int64_t batch, channels;
  int height, width;
  int kernel_height, kernel_width, dilation;

  __host__ __device__ int64_t planes() const { return batch * channels; }
  __host__ __device__ int padding_height() const { return dilation * (kernel_height - 1) / 2; }
  __host__ __device__ int padding_width() const { return dilation * (kernel_width - 1) / 2; }
};

}  // namespace unireplknet::cuda
