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
  int x_pitch, x_plane_pitch, grad_pitch, grad_plane_pitch, stage_floats;
  RowCopy x_load, grad_load;
  int threads;
  int64_t blocks;
  size_t shared_bytes;
};

// `stages` items of a block are in shared memory at a time.
inline BackwardWeightPlan plan_backward_weight(const Shape& shape, int filter_rows, int columns,
                                               int stages, const void* grad_output = nullptr,
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
    plan.stage_floats = images * (plan.x_plane_pitch + plan.grad_plane_pitch);
    const size_t tiles = sizeof(float) * stages * plan.stage_floats;
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

template <class T, int kFilterRows, int kColumns, int kStages>
__global__ void __launch_bounds__(kDirectThreads,
                                  resident_blocks(kFilterRows* kColumns + 4 * kStrip + kColumns))
    direct_backward_weight_kernel(const T* __restrict__ grad_output, const T* __restrict__ x,
                                  float* __restrict__ partials, const BackwardWeightPlan plan) {
  UNIREPLKNET_DYNAMIC_SHARED(int64_t, starts);
  const int images_per_block = plan.images_per_block.value(), strips = plan.strips.value();
  float* shared = reinterpret_cast<float*>(starts + images_per_block + images_per_block % 2);
  const Shape& shape = plan.shape;

  const int part = blockIdx.x % plan.parts, range = blockIdx.x / plan.parts % plan.column_ranges;
  const int64_t channel = blockIdx.x / plan.parts / plan.column_ranges;
  const int first_column = range * kColumns;
  constexpr int kShift = weight_window_shift(kColumns);

  const int filter_group = plan.positions.divide(threadIdx.x);
  const int position = threadIdx.x - filter_group * plan.positions.value();
  const int rest = plan.strips.divide(position), strip = position - rest * strips;
  const int group = plan.images_per_block.divide(rest), image = rest - group * images_per_block;

  // What is known of an item: which images, and which rows of the map and of grad_output.
  struct Item {
    int tile, first_image, images, y_begin, rows, grad_begin, grad_rows;
  };
  auto find_item = [&](int index) {
    Item item;
    item.tile = index % plan.tiles;
    item.first_image = index / plan.tiles * images_per_block;
    item.images = min(images_per_block, static_cast<int>(shape.batch) - item.first_image);
    item.y_begin = item.tile / plan.tiles_x * plan.groups * kMapRows;
    item.rows = min(plan.groups * kMapRows, shape.height - item.y_begin);
    item.grad_begin = max(0, item.y_begin - shape.padding_height());
    item.grad_rows =
        min(shape.height, item.y_begin + item.rows + shape.padding_height()) - item.grad_begin;
    return item;
  };

  float sums[kFilterRows][kColumns] = {};
  const int filter_rows = shape.kernel_height - filter_group * kFilterRows;
  const int first_item = part * plan.items_per_block;
  const int last_item = min(plan.items, first_item + plan.items_per_block);
  // With two stages an item is on its way while the block computes on the one before.
  for (int next = first_item; next < last_item + kStages - 1; ++next) {
    if (next < last_item) {
      const Item item = find_item(next);
      float* x_tile = shared + (next - first_item) % kStages * plan.stage_floats;
      __syncthreads();
      for (int i = threadIdx.x; i < item.images; i += blockDim.x) {
        starts[i] =
            ((item.first_image + i) * shape.channels + channel) * shape.height * shape.width;
      }
      __syncthreads();
      const int x_begin = item.tile % plan.tiles_x * strips * kStrip;
      const Planes x_held{starts, item.images, shape.width, plan.x_pitch, plan.x_plane_pitch};
      const Planes grad_held{starts, item.images, shape.width, plan.grad_pitch,
                             plan.grad_plane_pitch};
      load_tile(x_tile, x, x_held, item.y_begin, item.rows,
                x_begin - shape.padding_width() - kShift + first_column, plan.x_load);
      load_tile(x_tile + images_per_block * plan.x_plane_pitch, grad_output, grad_held,
                item.grad_begin, item.grad_rows, x_begin, plan.grad_load);
    }
    cp_async_commit();
    const int current = next - (kStages - 1);
    if (current < first_item) continue;
    cp_async_wait<kStages - 1>();
    __syncthreads();

    const Item item = find_item(current);
    const float* x_tile = shared + (current - first_item) % kStages * plan.stage_floats;
    const float* grad_tile = x_tile + images_per_block * plan.x_plane_pitch;
    if (filter_group < plan.filter_groups && image < item.images) {
      for (int row = group * kMapRows; row < min(item.rows, (group + 1) * kMapRows); ++row) {
        constexpr int kStrips = (kShift + kColumns + kStrip - 1 + kStrip - 1) / kStrip;
        float window[kStrips * kStrip];
        const float* x_row = x_tile + image * plan.x_plane_pitch + row * plan.x_pitch;
#pragma unroll
        for (int i = 0; i < kStrips; ++i)
          load_strip(window + i * kStrip, x_row + strip_offset(strip + i));
        const float* grad_column = grad_tile + image * plan.grad_plane_pitch + strip_offset(strip);
        // The stored row of grad_output that meets this map row under the group's first filter row.
        const int top = item.y_begin + row + shape.padding_height() - filter_group * kFilterRows -
                        item.grad_begin;
#pragma unroll
        for (int i = 0; i < kFilterRows; ++i) {
          // The last group may have fewer filter rows.
          if (i >= filter_rows ||
              static_cast<unsigned>(top - i) >= static_cast<unsigned>(item.grad_rows))
            continue;
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
// about 64 registers. Variants are compiled for float32 and the width 13; the other copies to
// shared memory are not asynchronous.
template <class T, class Use>
auto with_backward_weight_kernel(int width, const Variants& variants, const Use& use) {
#define UNIREPLKNET_USE_STAGES(rows, columns, stages) \
  return use(direct_backward_weight_kernel<T, rows, columns, stages>, rows, columns, stages)
#define UNIREPLKNET_USE(rows, columns) UNIREPLKNET_USE_STAGES(rows, columns, 1)
  if constexpr (std::is_same_v<T, float>) {
    if (width == 13) {
      if (variants.seven_rows && variants.prefetch) UNIREPLKNET_USE_STAGES(7, 13, 2);
      if (variants.seven_rows) UNIREPLKNET_USE_STAGES(7, 13, 1);
      if (variants.prefetch) UNIREPLKNET_USE_STAGES(5, 13, 2);
    }
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
#undef UNIREPLKNET_USE_STAGES
}

}  // namespace unireplknet::cuda
