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
constexpr int resident_blocks(int values) {
  return values <= 60 ? 6 : values <= 74 ? 5 : values <= 106 ? 4 : 3;
}

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
__host__ __device__ constexpr int window_shift(int padding) { return (4 - padding % 4) % 4; }

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

// How tiles are moved between the map and shared memory: in pieces of `vector` columns. A thread
// keeps to one column and takes every rows_at_once-th row, so that little is left to compute.
struct RowCopy {
  int vector, rows_at_once;
  Divisor pieces;  // of one row
};

// For rows of `columns` columns that start at a multiple of `alignment` columns of the map.
inline RowCopy plan_row_copy(int columns, int alignment, int width, int threads, const void* map,
                             size_t element_bytes) {
  int vector = 4;
  while (alignment % vector != 0 || width % vector != 0 ||
         reinterpret_cast<uintptr_t>(map) % (vector * element_bytes) != 0) {
    vector /= 2;
  }
  const int pieces = ceil_divide(columns, vector);
  return {vector, std::max(1, threads / pieces), Divisor(pieces)};
}

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  T values[kCount];
};

// The planes that a block holds: of the map, which begin at map + starts[i], and in shared memory.
struct Planes {
  const int64_t* starts;
  int count, width;
  int pitch, plane_pitch;  // in shared memory, in floats
};

template <class T, int kVector>
__device__ __forceinline__ void load_tile_by(float* tile, const T* map, const Planes& planes,
                                             int row_begin, int rows, int column_begin,
                                             const RowCopy& copy) {
  const int first_row = copy.pieces.divide(threadIdx.x), pieces = copy.pieces.value();
  if (first_row >= copy.rows_at_once) return;
  for (int piece = threadIdx.x - first_row * pieces; piece < pieces; piece += blockDim.x) {
    const int column = piece * kVector, map_column = column_begin + column;
    // With kVector columns in a piece, the border never runs through one.
    const bool inside = static_cast<unsigned>(map_column) < static_cast<unsigned>(planes.width);
    const int64_t offset = int64_t{row_begin + first_row} * planes.width + map_column;
    const int step = copy.rows_at_once * planes.width;
    for (int plane = 0; plane < planes.count; ++plane) {
      const T* source = inside ? map + (planes.starts[plane] + offset) : map;
      float* target =
          tile + plane * planes.plane_pitch + first_row * planes.pitch + column_offset(column);
#pragma unroll 4
      for (int row = first_row; row < rows; row += copy.rows_at_once) {
        if constexpr (std::is_same_v<T, float>) {
          cp_async<4 * kVector>(shared_address(target), source, inside);
        } else {
          Vector<float, kVector> values{};
          if (inside) {
            const auto raw = *reinterpret_cast<const Vector<T, kVector>*>(source);
#pragma unroll
            for (int i = 0; i < kVector; ++i) values.values[i] = to_float(raw.values[i]);
          }
          *reinterpret_cast<Vector<float, kVector>*>(target) = values;
        }
        if (inside) source += step;
        target += copy.rows_at_once * planes.pitch;
      }
    }
  }
}

// Loads `rows` rows from row_begin on and the columns from column_begin on of all planes as fp32.
// The rows lie within the map; columns outside it become zeros. For fp32 the copies are
// asynchronous: cp_async_wait and a barrier must follow in either case.
template <class T>
__device__ __forceinline__ void load_tile(float* tile, const T* map, const Planes& planes,
                                          int row_begin, int rows, int column_begin,
                                          const RowCopy& copy) {
  if (copy.vector == 4) {
    load_tile_by<T, 4>(tile, map, planes, row_begin, rows, column_begin, copy);
  } else if (copy.vector == 2) {
    load_tile_by<T, 2>(tile, map, planes, row_begin, rows, column_begin, copy);
  } else {
    load_tile_by<T, 1>(tile, map, planes, row_begin, rows, column_begin, copy);
  }
}

template <class T, int kVector>
__device__ __forceinline__ void store_tile_by(T* map, const float* tile, const Planes& planes,
                                              int row_begin, int rows, int column_begin,
                                              int columns, const RowCopy& copy) {
  const int first_row = copy.pieces.divide(threadIdx.x), pieces = copy.pieces.value();
  if (first_row >= copy.rows_at_once) return;
  for (int piece = threadIdx.x - first_row * pieces; piece < pieces; piece += blockDim.x) {
    const int column = piece * kVector;
    if (column >= columns) return;
    const int64_t offset = int64_t{row_begin + first_row} * planes.width + column_begin + column;
    const int step = copy.rows_at_once * planes.width;
    for (int plane = 0; plane < planes.count; ++plane) {
      T* target = map + (planes.starts[plane] + offset);
      const float* source =
          tile + plane * planes.plane_pitch + first_row * planes.pitch + column_offset(column);
#pragma unroll 4
      for (int row = first_row; row < rows; row += copy.rows_at_once) {
        const auto raw = *reinterpret_cast<const Vector<float, kVector>*>(source);
        Vector<T, kVector> values;
#pragma unroll
        for (int i = 0; i < kVector; ++i) values.values[i] = from_float<T>(raw.values[i]);
        *reinterpret_cast<Vector<T, kVector>*>(target) = values;
        target += step;
        source += copy.rows_at_once * planes.pitch;
      }
    }
  }
}

// Stores the tile's first `columns` columns of `rows` rows to all planes, from row_begin and
// column_begin on, rounded to T.
template <class T>
__device__ __forceinline__ void store_tile(T* map, const float* tile, const Planes& planes,
                                           int row_begin, int rows, int column_begin, int columns,
                                           const RowCopy& copy) {
  if (copy.vector == 4) {
    store_tile_by<T, 4>(map, tile, planes, row_begin, rows, column_begin, columns, copy);
  } else if (copy.vector == 2) {
    store_tile_by<T, 2>(map, tile, planes, row_begin, rows, column_begin, columns, copy);
  } else {
    store_tile_by<T, 1>(map, tile, planes, row_begin, rows, column_begin, columns, copy);
  }
}

__device__ __forceinline__ void load_strip(float* values, const float* source) {
  const float4 low = *reinterpret_cast<const float4*>(source),
               high = *reinterpret_cast<const float4*>(source + 4);
  values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
  values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

}  // namespace unireplknet::cuda
