// What the direct kernels for dilation 1 share: how a tile of the map lies in shared memory, how it
// gets there, and which planes a block works on.
#pragma once

#include "ptx.cuh"
#include "shape.cuh"

namespace unireplknet::cuda {

// A thread computes on strips of 8 columns, which it reads from shared memory as two float4.
constexpr int kStrip = 8;
constexpr int kDirectThreads = 128;
// Beyond this a block takes fewer planes or rows, so that several blocks fit on one multiprocessor.
constexpr size_t kTargetSharedBytes = 48 * 1024;

__host__ __device__ constexpr int ceil_divide(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

// Where strip `index` of a row begins. Four floats of padding after every four strips let eight
// threads that read eight consecutive strips as float4 reach all 32 banks; without them strips 0
// and 4 lie in the same banks.
__host__ __device__ constexpr int strip_offset(int index) {
  return kStrip * index + 4 * (index / 4);
}
__host__ __device__ constexpr int column_offset(int column) { return column + 4 * (column / 32); }

// The distance of a block's planes in shared memory: the next multiple of 32 floats, plus 4, so
// that threads on neighbouring planes read from different banks.
__host__ __device__ constexpr int skewed_pitch(int floats) {
  return ceil_divide(floats, 32) * 32 + 4;
}

// How many lanes load or store one row together.
constexpr int lanes_for(int columns) { return columns > 16 ? 32 : columns > 8 ? 16 : 8; }

// Planes are numbered channel first, plane = channel * batch + image, so that the planes of a block
// share filters.
__device__ __forceinline__ int64_t plane_start(unsigned plane, const Shape& shape) {
  const unsigned batch = static_cast<unsigned>(shape.batch), channel = plane / batch,
                 image = plane - channel * batch;
  return (image * shape.channels + channel) * shape.height * shape.width;
}

// Loads rows [row_begin, row_begin + rows) and columns [column_begin, column_begin + columns) of
// `planes` maps, which begin at starts[i], as fp32. The rows lie within the map; columns outside it
// become zeros. For fp32 the copies are asynchronous: cp_async_wait and a barrier must follow in
// either case.
template <class T>
__device__ __forceinline__ void load_tile(float* tile, int plane_pitch, int pitch, const T* map,
                                          const int64_t* starts, int planes, int row_begin,
                                          int rows, int column_begin, int columns, int width,
                                          int lanes) {
  const int lane = threadIdx.x % lanes, teams = blockDim.x / lanes;
  int plane = 0;
  for (int row = threadIdx.x / lanes;; row += teams) {
    while (row >= rows) {
      row -= rows;
      if (++plane >= planes) return;
    }
    const T* source =
        map + starts[plane] + static_cast<int64_t>(row_begin + row) * width + column_begin;
    float* target = tile + plane * plane_pitch + row * pitch;
#pragma unroll 4
    for (int column = lane; column < columns; column += lanes) {
      const bool inside =
          static_cast<unsigned>(column_begin + column) < static_cast<unsigned>(width);
      if constexpr (std::is_same_v<T, float>) {
        cp_async<4>(shared_address(target + column_offset(column)), inside ? source + column : map,
                    inside);
      } else {
        target[column_offset(column)] = inside ? to_float(source[column]) : 0.f;
      }
    }
  }
}

__device__ __forceinline__ void load_strip(float* values, const float* source) {
  const float4 low = *reinterpret_cast<const float4*>(source),
               high = *reinterpret_cast<const float4*>(source + 4);
  values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
  values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

}  // namespace unireplknet::cuda
