// Direct gradient of the filter, dilation 1, any odd filter:
//
//     grad_weight[c][i][j] = sum over n, y, x of grad_output[n][c][y][x] * map[n][c][y + i -
//     pad_h][x + j - pad_w]
//
// A block works on one channel, one range of kColumns filter columns and a share of the images and
// tiles. Its threads are (strip of 8 columns, image, group of 4 map rows, group of kFilterRows
// filter rows); each keeps kFilterRows x kColumns sums in registers. Per map row it reads 8 +
// kColumns - 1 values of the map once and, for each filter row, the 8 values of grad_output that
// this filter row pairs with them: kColumns * 8 multiply-adds for two float4. At the end the
// threads' sums are added up within the block, then over the blocks of the channel (reduction.cuh).
#pragma once

#include "direct_tile.cuh"
#include "reduction.cuh"

namespace unireplknet::cuda {

constexpr int kMapRows = 4;  // map rows of a thread in one tile

// The most frequent padding of the widths that run on kColumns (with_backward_weight_kernel).
__host__ __device__ constexpr int weight_window_shift(int columns) {
  return window_shift(columns == 8 ? 15 : columns == 10 ? 9 : (columns - 1) / 2);
}

struct BackwardWeightPlan {
  Shape shape;
  // A block's threads: strips, fastest; images; groups of kMapRows rows; groups of filter rows.
  Divisor strips, images_per_block, positions;  // positions: threads of one group of filter rows
  int groups, filter_groups;
  int column_ranges, tiles_x, tiles;
  int items, items_per_block, parts;  // an item is a tile of images_per_block images; parts blocks
                                      // share a channel's items
  int x_pitch, x_plane_pitch, grad_pitch, grad_plane_pitch;
  RowCopy x_load, grad_load;
  int threads;
  int64_t blocks;
  size_t shared_bytes;
};

inline BackwardWeightPlan plan_backward_weight(const Shape& shape, int filter_rows, int columns,
                                               const void* grad_output = nullptr,
                                               const void* x = nullptr, size_t element_bytes = 4) {
  BackwardWeightPlan plan{};
  plan.shape = shape;
  plan.filter_groups = ceil_divide(shape.kernel_height, filter_rows);
  plan.column_ranges = ceil_divide(shape.kernel_width, columns);
  const int positions = kDirectThreads / plan.filter_groups;
  const int all_strips = ceil_divide(shape.width, kStrip);
  plan.tiles_x = ceil_divide(all_strips, std::min(8, positions));
  const int strips = ceil_divide(all_strips, plan.tiles_x);
  const int shift = weight_window_shift(columns);
  plan.strips = Divisor(strips);
  const int x_columns = strips * kStrip + shift + columns - 1;
  plan.x_pitch = strip_offset(ceil_divide(x_columns, kStrip));
  plan.grad_pitch = strip_offset(strips);

  const int groups = ceil_divide(shape.height, kMapRows);
  auto set = [&](int groups_per_block, int images) {
    const int tiles_y = ceil_divide(groups, groups_per_block);
    plan.tiles = plan.tiles_x * tiles_y;
    plan.groups = ceil_divide(groups, tiles_y);
    plan.images_per_block = Divisor(images);
    plan.positions = Divisor(strips * plan.groups * images);
    const int rows = std::min(shape.height, plan.groups * kMapRows);
    const int grad_rows = std::min(shape.height, plan.groups * kMapRows + shape.kernel_height - 1);
    plan.x_plane_pitch = skewed_pitch(rows * plan.x_pitch);
    plan.grad_plane_pitch = skewed_pitch(grad_rows * plan.grad_pitch);
    const size_t tiles = sizeof(float) * images * (plan.x_plane_pitch + plan.grad_plane_pitch);
    const size_t sums = sizeof(float) * plan.filter_groups * columns * plan.positions.value();
    plan.shared_bytes = (images + images % 2) * sizeof(int64_t) + std::max(tiles, sums);
  };
  set(positions / strips, 1);
  while (plan.groups > 1 && (plan.shared_bytes > kMaxSharedBytes ||
                             (plan.shared_bytes > kTargetSharedBytes && plan.groups > 4))) {
    set(ceil_divide(plan.groups, 2), 1);
  }
  const BackwardWeightPlan single = plan;
  const int most_images = std::min<int64_t>(positions / (strips * plan.groups), shape.batch);
  for (int images = most_images; images > 1; --images) {
    set(plan.groups, images);
    if (plan.shared_bytes <= kTargetSharedBytes) break;
    plan = single;
  }
  plan.items = ceil_divide(shape.batch, plan.images_per_block.value()) * plan.tiles;
  // About 2048 blocks fill any GPU several times over; more would only repeat the summing up at a
  // block's end.
  const int64_t filters = shape.channels * plan.column_ranges;
  plan.items_per_block =
      ceil_divide(plan.items, std::min<int64_t>(plan.items, ceil_divide(2048, filters)));
  plan.parts = ceil_divide(plan.items, plan.items_per_block);
  plan.blocks = filters * plan.parts;
  // Where the ranges of filter columns do not begin at multiples of 4, nor do the tiles.
  const int start = shape.padding_width() + shift;
  const int alignment = plan.column_ranges > 1 ? start | columns : start;
  plan.threads = ceil_divide(plan.positions.value() * plan.filter_groups, 32) * 32;
  plan.x_load = plan_row_copy(x_columns, alignment, shape.width, plan.threads, x, element_bytes);
  plan.grad_load =
      plan_row_copy(strips * kStrip, kStrip, shape.width, plan.threads, grad_output, element_bytes);
  return plan;
}

template <class T, int kFilterRows, int kColumns>
__global__ void __launch_bounds__(kDirectThreads,
                                  resident_blocks(kFilterRows* kColumns + 4 * kStrip + kColumns))
    direct_backward_weight_kernel(const T* __restrict__ grad_output, const T* __restrict__ x,
                                  float* __restrict__ partials, const BackwardWeightPlan plan) {
  UNIREPLKNET_DYNAMIC_SHARED(int64_t, starts);
  const int images_per_block = plan.images_per_block.value(), strips = plan.strips.value();
  float* shared = reinterpret_cast<float*>(starts + images_per_block + images_per_block % 2);
  float* x_tile = shared;
  float* grad_tile = x_tile + images_per_block * plan.x_plane_pitch;
  const Shape& shape = plan.shape;

  const int part = blockIdx.x % plan.parts, range = blockIdx.x / plan.parts % plan.column_ranges;
  const int64_t channel = blockIdx.x / plan.parts / plan.column_ranges;
  const int first_column = range * kColumns;
  constexpr int kShift = weight_window_shift(kColumns);

  const int filter_group = plan.positions.divide(threadIdx.x);
  const int position = threadIdx.x - filter_group * plan.positions.value();
  const int rest = plan.strips.divide(position), strip = position - rest * strips;
  const int group = plan.images_per_block.divide(rest), image = rest - group * images_per_block;

  float sums[kFilterRows][kColumns] = {};
  const int last_item = min(plan.items, (part + 1) * plan.items_per_block);
  for (int item = part * plan.items_per_block; item < last_item; ++item) {
    const int tile = item % plan.tiles, first_image = item / plan.tiles * images_per_block;
    const int y_begin = tile / plan.tiles_x * plan.groups * kMapRows;
    const int x_begin = tile % plan.tiles_x * strips * kStrip;
    const int images = min(images_per_block, static_cast<int>(shape.batch) - first_image);
    __syncthreads();
    for (int i = threadIdx.x; i < images; i += blockDim.x) {
      starts[i] = ((first_image + i) * shape.channels + channel) * shape.height * shape.width;
    }
    __syncthreads();
    const int rows = min(plan.groups * kMapRows, shape.height - y_begin);
    const int grad_begin = max(0, y_begin - shape.padding_height());
    const int grad_rows = min(shape.height, y_begin + rows + shape.padding_height()) - grad_begin;
    const Planes x_held{starts, images, shape.width, plan.x_pitch, plan.x_plane_pitch};
    const Planes grad_held{starts, images, shape.width, plan.grad_pitch, plan.grad_plane_pitch};
    load_tile(x_tile, x, x_held, y_begin, rows,
              x_begin - shape.padding_width() - kShift + first_column, plan.x_load);
    load_tile(grad_tile, grad_output, grad_held, grad_begin, grad_rows, x_begin, plan.grad_load);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    if (filter_group < plan.filter_groups && image < images) {
      for (int row = group * kMapRows; row < min(rows, (group + 1) * kMapRows); ++row) {
        constexpr int kStrips = (kShift + kColumns + kStrip - 1 + kStrip - 1) / kStrip;
        float window[kStrips * kStrip];
        const float* x_row = x_tile + image * plan.x_plane_pitch + row * plan.x_pitch;
#pragma unroll
        for (int i = 0; i < kStrips; ++i)
          load_strip(window + i * kStrip, x_row + strip_offset(strip + i));
        const float* grad_column = grad_tile + image * plan.grad_plane_pitch + strip_offset(strip);
        // The stored row of grad_output that meets this map row under the group's first filter row.
        const int top =
            y_begin + row + shape.padding_height() - filter_group * kFilterRows - grad_begin;
#pragma unroll
        for (int i = 0; i < kFilterRows; ++i) {
          if (static_cast<unsigned>(top - i) >= static_cast<unsigned>(grad_rows)) continue;
          float grad[kStrip];
          load_strip(grad, grad_column + (top - i) * plan.grad_pitch);
#pragma unroll
          for (int j = 0; j < kColumns; ++j) {
#pragma unroll
            for (int s = 0; s < kStrip; ++s) sums[i][j] += grad[s] * window[kShift + s + j];
          }
        }
      }
    }
  }
  const int taps = shape.kernel_height * shape.kernel_width;
  const int positions = plan.positions.value();
  add_positions(sums, shared, filter_group, plan.filter_groups,
                filter_group < plan.filter_groups ? position : positions, positions, 0,
                first_column, shape.kernel_height, shape.kernel_width,
                partials + (part * shape.channels + channel) * taps);
}

// The sums that a thread keeps, by the filter's width: few taps beyond the filter, and at most
// about 64 registers.
template <class T, class Use>
auto with_backward_weight_kernel(int width, const Use& use) {
#define UNIREPLKNET_USE(rows, columns) \
  return use(direct_backward_weight_kernel<T, rows, columns>, rows, columns)
  if constexpr (std::is_same_v<T, float>) {
    switch (width) {
      case 9:
      case 17:
      case 27:
        UNIREPLKNET_USE(5, 9);
      case 11:
        UNIREPLKNET_USE(6, 11);
      case 13:
      case 25:
        UNIREPLKNET_USE(5, 13);
      case 19:
      case 29:
        UNIREPLKNET_USE(5, 10);
    }
  }
  if (width <= 3) UNIREPLKNET_USE(3, 3);
  if (width == 5) UNIREPLKNET_USE(5, 5);
  if (width == 7 || width == 21) UNIREPLKNET_USE(7, 7);
  UNIREPLKNET_USE(8, 8);
#undef UNIREPLKNET_USE
}

}  // namespace unireplknet::cuda
