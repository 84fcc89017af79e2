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

struct BackwardWeightPlan {
  Shape shape;
  int strips, images_per_block, groups, filter_groups;  // a block's threads, strips fastest
  int column_ranges, tiles_x, tiles_y;
  int items, items_per_block, parts;  // an item is one tile of images_per_block images; parts
                                      // blocks share a channel's items
  int x_pitch, x_plane_pitch, grad_pitch, grad_plane_pitch;
  int x_lanes, grad_lanes, threads;
  int64_t blocks;
  size_t shared_bytes;
};

inline BackwardWeightPlan plan_backward_weight(const Shape& shape, int filter_rows, int columns) {
  BackwardWeightPlan plan{};
  plan.shape = shape;
  plan.filter_groups = ceil_divide(shape.kernel_height, filter_rows);
  plan.column_ranges = ceil_divide(shape.kernel_width, columns);
  const int positions = kDirectThreads / plan.filter_groups;
  const int strips = ceil_divide(shape.width, kStrip), groups = ceil_divide(shape.height, kMapRows);
  plan.tiles_x = ceil_divide(strips, std::min(8, positions));
  plan.strips = ceil_divide(strips, plan.tiles_x);
  plan.x_pitch = strip_offset(plan.strips - 1 + ceil_divide(columns + kStrip - 1, kStrip));
  plan.grad_pitch = strip_offset(plan.strips);

  auto set = [&](int groups_per_block, int images) {
    plan.tiles_y = ceil_divide(groups, groups_per_block);
    plan.groups = ceil_divide(groups, plan.tiles_y);
    plan.images_per_block = images;
    const int rows = std::min(shape.height, plan.groups * kMapRows);
    const int grad_rows = std::min(shape.height, plan.groups * kMapRows + shape.kernel_height - 1);
    plan.x_plane_pitch = skewed_pitch(rows * plan.x_pitch);
    plan.grad_plane_pitch = skewed_pitch(grad_rows * plan.grad_pitch);
    const size_t tiles = sizeof(float) * images * (plan.x_plane_pitch + plan.grad_plane_pitch);
    const size_t sums =
        sizeof(float) * plan.filter_groups * columns * plan.strips * plan.groups * images;
    plan.shared_bytes = (images + images % 2) * sizeof(int64_t) + std::max(tiles, sums);
  };
  set(positions / plan.strips, 1);
  while (plan.groups > 1 && (plan.shared_bytes > kMaxSharedBytes ||
                             (plan.shared_bytes > kTargetSharedBytes && plan.groups > 4))) {
    set(ceil_divide(plan.groups, 2), 1);
  }
  int images = std::min<int64_t>(positions / (plan.strips * plan.groups), shape.batch);
  for (; images > 1; --images) {
    set(plan.groups, images);
    if (plan.shared_bytes <= kTargetSharedBytes) break;
  }
  if (images <= 1) set(plan.groups, 1);
  plan.items = ceil_divide(shape.batch, plan.images_per_block) * plan.tiles_x * plan.tiles_y;
  // About 2048 blocks fill any GPU several times over; more would only repeat the summing up at a
  // block's end.
  const int64_t filters = shape.channels * plan.column_ranges;
  plan.items_per_block =
      ceil_divide(plan.items, std::min<int64_t>(plan.items, ceil_divide(2048, filters)));
  plan.parts = ceil_divide(plan.items, plan.items_per_block);
  plan.blocks = filters * plan.parts;
  plan.x_lanes = lanes_for(plan.strips * kStrip + columns - 1);
  plan.grad_lanes = lanes_for(plan.strips * kStrip);
  plan.threads =
      ceil_divide(plan.strips * plan.images_per_block * plan.groups * plan.filter_groups, 32) * 32;
  return plan;
}

template <class T, int kFilterRows, int kColumns>
__global__ void __launch_bounds__(kDirectThreads)
    direct_backward_weight_kernel(const T* __restrict__ grad_output, const T* __restrict__ x,
                                  float* __restrict__ partials, const BackwardWeightPlan plan) {
  UNIREPLKNET_DYNAMIC_SHARED(int64_t, starts);
  float* shared =
      reinterpret_cast<float*>(starts + plan.images_per_block + plan.images_per_block % 2);
  float* x_tile = shared;
  float* grad_tile = x_tile + plan.images_per_block * plan.x_plane_pitch;
  const Shape& shape = plan.shape;

  const int part = blockIdx.x % plan.parts, range = blockIdx.x / plan.parts % plan.column_ranges;
  const int64_t channel = blockIdx.x / plan.parts / plan.column_ranges;
  const int first_column = range * kColumns;

  const int positions = plan.strips * plan.images_per_block * plan.groups;
  const int filter_group = threadIdx.x / positions,
            position = threadIdx.x - filter_group * positions;
  const int strip = position % plan.strips, rest = position / plan.strips;
  const int image = rest % plan.images_per_block, group = rest / plan.images_per_block;

  float sums[kFilterRows][kColumns] = {};
  const int last_item = min(plan.items, (part + 1) * plan.items_per_block);
  for (int item = part * plan.items_per_block; item < last_item; ++item) {
    const int tile = item % (plan.tiles_x * plan.tiles_y),
              first_image = item / (plan.tiles_x * plan.tiles_y) * plan.images_per_block;
    const int y_begin = tile / plan.tiles_x * plan.groups * kMapRows,
              x_begin = tile % plan.tiles_x * plan.strips * kStrip;
    const int images = min(plan.images_per_block, static_cast<int>(shape.batch) - first_image);
    __syncthreads();
    for (int i = threadIdx.x; i < images; i += blockDim.x) {
      starts[i] = ((first_image + i) * shape.channels + channel) * shape.height * shape.width;
    }
    __syncthreads();
    const int rows = min(plan.groups * kMapRows, shape.height - y_begin);
    const int grad_begin = max(0, y_begin - shape.padding_height());
    const int grad_rows = min(shape.height, y_begin + rows + shape.padding_height()) - grad_begin;
    load_tile(x_tile, plan.x_plane_pitch, plan.x_pitch, x, starts, images, y_begin, rows,
              x_begin - shape.padding_width() + first_column, plan.strips * kStrip + kColumns - 1,
              shape.width, plan.x_lanes);
    load_tile(grad_tile, plan.grad_plane_pitch, plan.grad_pitch, grad_output, starts, images,
              grad_begin, grad_rows, x_begin, plan.strips * kStrip, shape.width, plan.grad_lanes);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    if (filter_group < plan.filter_groups && image < images) {
      for (int row = group * kMapRows; row < min(rows, (group + 1) * kMapRows); ++row) {
        constexpr int kStrips = (kColumns + kStrip - 1 + kStrip - 1) / kStrip;
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
            for (int s = 0; s < kStrip; ++s) sums[i][j] += grad[s] * window[s + j];
          }
        }
      }
    }
  }
  const int taps = shape.kernel_height * shape.kernel_width;
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
