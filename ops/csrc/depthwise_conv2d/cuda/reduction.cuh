// The weight gradient's two stages: every block leaves one fp32 partial filter in a workspace, a
// second kernel adds the partials. No atomics, and the split depends on the shape only, so the
// result is the same from run to run.
#pragma once

#include "ptx.cuh"

namespace unireplknet::cuda {

// First stage, the end of a block. Thread `position` of `positions` in filter group `group` holds
// sums for the kRows x kColumns taps from (group * kRows + row_shift, column_shift) on; the sum
// over positions goes to partial (height x width); taps outside it are dropped. All threads of the
// block call it; those that hold nothing pass position = positions. `shared` takes groups *
// kColumns * positions floats and may not be in use; the number of threads is a multiple of 32.
template <int kRows, int kColumns>
__device__ __forceinline__ void add_positions(const float (&sums)[kRows][kColumns], float* shared,
                                              int group, int groups, int position, int positions,
                                              int row_shift, int column_shift, int height,
                                              int width, float* partial) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    __syncthreads();
    if (position < positions) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        shared[(group * kColumns + c) * positions + position] = sums[r][c];
    }
    __syncthreads();
    for (int tap = threadIdx.x / 32; tap < groups * kColumns; tap += blockDim.x / 32) {
      float sum = 0.f;
      for (int i = lane; i < positions; i += 32) sum += shared[tap * positions + i];
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2)
        sum += __shfl_down_sync(0xffffffffu, sum, offset);
      const int row = tap / kColumns * kRows + r + row_shift,
                column = tap % kColumns + column_shift;
      if (lane == 0 && row >= 0 && row < height && column >= 0 && column < width)
        partial[row * width + column] = sum;
    }
  }
}

// Second stage: out[i] = sum over k of partials[k * count + i], in this order.
template <class T>
__global__ void __launch_bounds__(256)
    add_partials_kernel(const float* __restrict__ partials, T* __restrict__ out, int64_t count,
                        int parts) {
  const int64_t index = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (index >= count) return;
  float sum = 0.f;
#pragma unroll 4
  for (int part = 0; part < parts; ++part) sum += partials[part * count + index];
  out[index] = from_float<T>(sum);
}

template <class T>
cudaError_t launch_add_partials(const float* partials, T* out, int64_t count, int parts,
                                cudaStream_t stream) {
  const int64_t blocks = (count + 255) / 256;
  if (blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
  return launch(add_partials_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(256), 0, stream,
                partials, out, count, parts);
}

}  // namespace unireplknet::cuda
