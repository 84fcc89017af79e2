// What the direct kernels for dilation 1 share: how a tile of the map lies in shared memory, how it
// gets there, and which planes a block works on.
#pragma once

#include "ptx.cuh"
#include "shape.cuh"

namespace unireplknet::cuda {

// A thread computes on strips of 8 columns, which it reads from shared memory as two float4.
constexpr int kStrip = 8;
constexpr int kDirectThreads = 128;
// Blocks of kDirectThreads that should fit on one multiprocessor beside each other, for a kernel
// whose hot values (sums and a window of inputs) take `values` registers. Named for ptxas, whose
// own guess is a round number of blocks even at the price of spills.
constexpr int resident_blocks(int values) { return values <= 60 ? 6 : values <= 74 ? 5 : 4; }

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

// Columns by which a tile starts further left than the filter reaches, so that it starts at a
// multiple of 4 columns of the map where the map's rows do.
constexpr int window_shift(int padding) { return (4 - padding % 4) % 4; }

// Division of numbers below 2^31 by a fixed one, in three instructions instead of twenty.
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(unsigned value) : value_(value) {
    while ((uint64_t{1} << shift_) < value) ++shift_;
    multiplier_ = static_cast<unsigned>(
        ((uint64_t{1} << 32) * ((uint64_t{1} << shift_) - value)) / value + 1);
  }
  __host__ __device__ __forceinline__ unsigned value() const { return value_; }
  __device__ __forceinline__ unsigned divide(unsigned number) const {
    return (__umulhi(number, multiplier_) + number) >> shift_;
  }
  __device__ __forceinline__ unsigned remainder(unsigned number) const {
    return number - divide(number) * value_;
  }

 private:
  unsigned value_ = 1, multiplier_ = 1, shift_ = 0;
};

// How the rows of a tile are moved between the map and shared memory: in pieces of `vector`
// columns.
struct RowCopy {
  int vector;
  Divisor pieces;  // of one row
};

// Rows of `columns` columns that start at a multiple of `alignment` columns of the map.
inline RowCopy plan_row_copy(int columns, int alignment, int width, const void* map,
                             size_t element_bytes) {
  int vector = 4;
  while (alignment % vector != 0 || width % vector != 0 ||
         reinterpret_cast<uintptr_t>(map) % (vector * element_bytes) != 0) {
    vector /= 2;
  }
  return {vector, Divisor(ceil_divide(columns, vector))};
}

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  T values[kCount];
};

// Rows [0, rows) of a tile from a map whose element (0, 0) of the tile would be at `source`, as
// fp32.
template <class T, int kVector>
__device__ __forceinline__ void load_plane_by(float* tile, int pitch, const T* source, const T* map,
                                              int rows, int column_begin, int width,
                                              const Divisor& pieces) {
  const int total = rows * pieces.value();
#pragma unroll 4
  for (int index = threadIdx.x; index < total; index += blockDim.x) {
    const int row = pieces.divide(index), column = (index - row * pieces.value()) * kVector;
    // With kVector columns in a piece, the border never runs through one.
    const bool inside = static_cast<unsigned>(column_begin + column) < static_cast<unsigned>(width);
    float* target = tile + row * pitch + column_offset(column);
    const T* from = inside ? source + (row * width + column) : map;
    if constexpr (std::is_same_v<T, float>) {
      cp_async<4 * kVector>(shared_address(target), from, inside);
    } else {
      Vector<float, kVector> values{};
      if (inside) {
        const auto raw = *reinterpret_cast<const Vector<T, kVector>*>(from);
#pragma unroll
        for (int i = 0; i < kVector; ++i) values.values[i] = to_float(raw.values[i]);
      }
      *reinterpret_cast<Vector<float, kVector>*>(target) = values;
    }
  }
}

// Loads `rows` rows from row_begin on and the columns from column_begin on of `planes` maps, which
// begin at map + starts[i], as fp32. The rows lie within the map; columns outside it become zeros.
// For fp32 the copies are asynchronous: cp_async_wait and a barrier must follow in either case.
template <class T>
__device__ __forceinline__ void load_tile(float* tile, int plane_pitch, int pitch, const T* map,
                                          const int64_t* starts, int planes, int row_begin,
                                          int rows, int column_begin, int width,
                                          const RowCopy& copy) {
  for (int plane = 0; plane < planes; ++plane) {
    const T* source = map + starts[plane] + int64_t{row_begin} * width + column_begin;
    float* target = tile + plane * plane_pitch;
    if (copy.vector == 4) {
      load_plane_by<T, 4>(target, pitch, source, map, rows, column_begin, width, copy.pieces);
    } else if (copy.vector == 2) {
      load_plane_by<T, 2>(target, pitch, source, map, rows, column_begin, width, copy.pieces);
    } else {
      load_plane_by<T, 1>(target, pitch, source, map, rows, column_begin, width, copy.pieces);
    }
  }
}

// Stores the first `columns` columns of `rows` rows of a tile to the map from `target` on.
template <class T, int kVector>
__device__ __forceinline__ void store_plane_by(T* target, int width, const float* tile, int pitch,
                                               int rows, int columns, const Divisor& pieces) {
  const int total = rows * pieces.value();
#pragma unroll 4
  for (int index = threadIdx.x; index < total; index += blockDim.x) {
    const int row = pieces.divide(index), column = (index - row * pieces.value()) * kVector;
    if (column >= columns) continue;
    const auto raw = *reinterpret_cast<const Vector<float, kVector>*>(tile + row * pitch +
                                                                      column_offset(column));
    Vector<T, kVector> values;
#pragma unroll
    for (int i = 0; i < kVector; ++i) values.values[i] = from_float<T>(raw.values[i]);
    *reinterpret_cast<Vector<T, kVector>*>(target + (row * width + column)) = values;
  }
}

template <class T>
__device__ __forceinline__ void store_tile(T* map, const int64_t* starts, int planes, int row_begin,
                                           int rows, int column_begin, int columns, int width,
                                           const float* tile, int plane_pitch, int pitch,
                                           const RowCopy& copy) {
  for (int plane = 0; plane < planes; ++plane) {
    T* target = map + starts[plane] + int64_t{row_begin} * width + column_begin;
    const float* source = tile + plane * plane_pitch;
    if (copy.vector == 4) {
      store_plane_by<T, 4>(target, width, source, pitch, rows, columns, copy.pieces);
    } else if (copy.vector == 2) {
      store_plane_by<T, 2>(target, width, source, pitch, rows, columns, copy.pieces);
    } else {
      store_plane_by<T, 1>(target, width, source, pitch, rows, columns, copy.pieces);
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
