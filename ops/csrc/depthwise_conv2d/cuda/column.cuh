// Direct kernels for filters up to 9 x 9 with any dilation: a thread walks down one column of the
// map.
//
// With dilation d the rows phase, phase + d, phase + 2 d, ... are convolved among themselves, so a
// thread takes one column of one such set of rows (numbered 0, 1, ... below). A row's K inputs, d
// columns apart, are read once, through the L1 cache, and used for the K output rows that they
// touch, whose sums move through K registers: K loads for K^2 multiply-adds, neighbouring threads
// read neighbouring columns, nothing is computed for rows outside the map. Smaller or rectangular
// filters are centred in K x K, with zeros around them: there a value that is not finite makes NaN
// of outputs up to (K - size) / 2 taps of d rows or columns beyond its window.
#pragma once

#include "direct_tile.cuh"
#include "reduction.cuh"

namespace unireplknet::cuda {

constexpr int kColumnThreads = kDirectThreads;

struct ColumnPlan {
  Shape shape;
  bool flip;
  int columns;                           // of one plane, over all phases
  int planes_per_block, blocks_a_plane;  // one of them is 1
  int segments, segment_rows;            // of the rows of a phase; forward only
  int parts, images_per_part;            // backward_weight only
  int64_t blocks;
};

inline ColumnPlan plan_column_forward(const Shape& shape, bool flip) {
  ColumnPlan plan{};
  plan.shape = shape;
  plan.flip = flip;
  const int phases = std::min(shape.dilation, shape.height),
            rows = ceil_divide(shape.height, phases);
  plan.columns = phases * shape.width;
  plan.planes_per_block = std::max(1, kColumnThreads / plan.columns);
  plan.blocks_a_plane = ceil_divide(plan.columns, kColumnThreads);
  // Long columns are cut where there would be too few threads to fill a GPU (about 2^18).
  const int64_t wanted = (int64_t{1} << 18) / (shape.planes() * plan.columns);
  const int segments = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(wanted, rows / 8)));
  plan.segment_rows = ceil_divide(rows, segments);
  plan.segments = ceil_divide(rows, plan.segment_rows);
  plan.blocks = (shape.planes() + plan.planes_per_block - 1) / plan.planes_per_block *
                plan.segments * plan.blocks_a_plane;
  return plan;
}

inline ColumnPlan plan_column_backward_weight(const Shape& shape) {
  ColumnPlan plan{};
  plan.shape = shape;
  const int phases = std::min(shape.dilation, shape.height);
  plan.columns = phases * shape.width;
  const int64_t parts = std::min<int64_t>(shape.batch, ceil_divide(2048, shape.channels));
  plan.images_per_part = ceil_divide(shape.batch, parts);
  plan.parts = ceil_divide(shape.batch, plan.images_per_part);
  plan.blocks = shape.channels * plan.parts;
  return plan;
}

// One row's inputs under the filter, zero outside the map.
template <class T, int K>
__device__ __forceinline__ void load_row(float (&values)[K], const T* row, int column, int dilation,
                                         int width) {
#pragma unroll
  for (int j = 0; j < K; ++j) {
    const int source = column + (j - K / 2) * dilation;
    values[j] =
        static_cast<unsigned>(source) < static_cast<unsigned>(width) ? to_float(row[source]) : 0.f;
  }
}

template <class T, int K>
__global__ void __launch_bounds__(kColumnThreads, resident_blocks(K* K + 2 * K))
    column_forward_kernel(const T* __restrict__ x, const T* __restrict__ weight,
                          const T* __restrict__ bias, T* __restrict__ out, const ColumnPlan plan) {
  const Shape& shape = plan.shape;
  const unsigned block = blockIdx.x / plan.blocks_a_plane;
  const int segment = block % plan.segments;
  const unsigned index = blockIdx.x % plan.blocks_a_plane * kColumnThreads + threadIdx.x,
                 slot = index / plan.columns;
  const int64_t plane = int64_t{block / plan.segments} * plan.planes_per_block + slot;
  if (slot >= static_cast<unsigned>(plan.planes_per_block) || plane >= shape.planes()) return;
  const int column = (index - slot * plan.columns) % shape.width,
            phase = (index - slot * plan.columns) / shape.width;
  const int rows = (shape.height - phase + shape.dilation - 1) / shape.dilation;
  const int64_t channel = plane / shape.batch, image = plane - channel * shape.batch;
  const int64_t start = (image * shape.channels + channel) * shape.height * shape.width +
                        int64_t{phase} * shape.width;
  const int64_t stride = int64_t{shape.dilation} * shape.width;

  float filter[K][K];
  const int taps = shape.kernel_height * shape.kernel_width;
#pragma unroll
  for (int i = 0; i < K; ++i) {
#pragma unroll
    for (int j = 0; j < K; ++j) {
      const int row = i - (K - shape.kernel_height) / 2,
                tap_column = j - (K - shape.kernel_width) / 2;
      const bool inside =
          static_cast<unsigned>(row) < static_cast<unsigned>(shape.kernel_height) &&
          static_cast<unsigned>(tap_column) < static_cast<unsigned>(shape.kernel_width);
      const int tap = row * shape.kernel_width + tap_column;
      filter[i][j] =
          inside ? to_float(weight[channel * taps + (plan.flip ? taps - 1 - tap : tap)]) : 0.f;
    }
  }
  const float offset = bias ? to_float(bias[channel]) : 0.f;

  const int first = segment * plan.segment_rows, last = min(rows, first + plan.segment_rows);
  // At input row m, sums[i] belongs to output row m + K / 2 - i.
  float sums[K] = {};
  for (int m = first - K / 2; m < last + K / 2; ++m) {
    if (m >= 0 && m < rows) {
      float values[K];
      load_row(values, x + start + m * stride, column, shape.dilation, shape.width);
#pragma unroll
      for (int i = 0; i < K; ++i) {
#pragma unroll
        for (int j = 0; j < K; ++j) sums[i] += filter[i][j] * values[j];
      }
    }
    if (m - K / 2 >= first)
      out[start + (m - K / 2) * stride + column] = from_float<T>(sums[K - 1] + offset);
#pragma unroll
    for (int i = K - 1; i > 0; --i) sums[i] = sums[i - 1];
    sums[0] = 0.f;
  }
}

template <class T, int K>
__global__ void __launch_bounds__(kColumnThreads, resident_blocks(K* K + 2 * K))
    column_backward_weight_kernel(const T* __restrict__ grad_output, const T* __restrict__ x,
                                  float* __restrict__ partials, const ColumnPlan plan) {
  UNIREPLKNET_DYNAMIC_SHARED(float, shared);
  const Shape& shape = plan.shape;
  const int part = blockIdx.x % plan.parts;
  const int64_t channel = blockIdx.x / plan.parts;
  const int64_t stride = int64_t{shape.dilation} * shape.width;
  const int first_image = part * plan.images_per_part;
  const int images = min(plan.images_per_part, static_cast<int>(shape.batch) - first_image);

  float sums[K][K] = {};
  int image = 0;
  for (int index = threadIdx.x;; index += kColumnThreads) {
    while (image < images && index >= plan.columns) {
      index -= plan.columns;
      ++image;
    }
    if (image >= images) break;
    const int column = index % shape.width, phase = index / shape.width;
    const int rows = (shape.height - phase + shape.dilation - 1) / shape.dilation;
    const int64_t start =
        ((first_image + image) * shape.channels + channel) * shape.height * shape.width +
        int64_t{phase} * shape.width;
    // At map row m, grads[i] is grad_output at row m + K / 2 - i, which filter row i pairs with it.
    float grads[K] = {};
    for (int m = -(K / 2); m < rows; ++m) {
#pragma unroll
      for (int i = K - 1; i > 0; --i) grads[i] = grads[i - 1];
      grads[0] =
          m + K / 2 < rows ? to_float(grad_output[start + (m + K / 2) * stride + column]) : 0.f;
      if (m < 0) continue;
      float values[K];
      load_row(values, x + start + m * stride, column, shape.dilation, shape.width);
#pragma unroll
      for (int i = 0; i < K; ++i) {
#pragma unroll
        for (int j = 0; j < K; ++j) sums[i][j] += grads[i] * values[j];
      }
    }
  }
  const int taps = shape.kernel_height * shape.kernel_width;
  add_positions(sums, shared, 0, 1, threadIdx.x, kColumnThreads, -(K - shape.kernel_height) / 2,
                -(K - shape.kernel_width) / 2, shape.kernel_height, shape.kernel_width,
                partials + (part * shape.channels + channel) * taps);
}

// Calls use(std::integral_constant<int, K>) for the smallest compiled K that holds the filter.
template <class Use>
auto with_column_size(const Shape& shape, const Use& use) {
  const int size = std::max(shape.kernel_height, shape.kernel_width);
  if (size <= 3) return use(std::integral_constant<int, 3>{});
  if (size <= 5) return use(std::integral_constant<int, 5>{});
  if (size <= 7) return use(std::integral_constant<int, 7>{});
  return use(std::integral_constant<int, 9>{});
}

}  // namespace unireplknet::cuda
