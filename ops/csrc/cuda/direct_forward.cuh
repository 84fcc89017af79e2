// Direct forward convolution, dilation 1, any odd filter; with the filter turned by 180 degrees
// also the gradient of the input.
//
// A block holds in shared memory a tile of one or more planes with its halo, and the filters of
// their channels. A thread owns 4 rows x 8 columns of outputs in registers and walks down the input
// rows: it reads the row's 8 + width - 1 inputs once and uses them for every output row that they
// touch,
//
//     input row   +-------- 8 + width - 1 --------+          out row 0 += filter row dy     *
//     window y + dy      |///////// window //////////////|   --->   out row 1 += filter row dy - 1
//     * window
//                 +-------------------------------+          out row 2, 3 likewise
//
// so a filter row costs width * 8 multiply-adds for width / 4 broadcast reads, and the window is
// shared by up to 4 filter rows. Rows outside the map are neither stored nor computed. Results go
// through shared memory, so that stores are coalesced for any width.
#pragma once

#include "direct_tile.cuh"

namespace unireplknet::cuda {

constexpr int kRows = 4;  // output rows of a thread

struct ForwardPlan {
  Shape shape;
  bool flip;
  int strips, groups,
      planes_per_block;  // a block's threads: strips along w, fastest; planes; groups of kRows rows
  int tiles_x, tiles_y;
  int pitch, plane_pitch, filter_row, filter_pitch;
  int load_lanes, store_lanes, threads;
  int64_t blocks;
  size_t shared_bytes;
};

// Kernel columns of the compile-time widths are exact; otherwise (kWidth 0) filters are padded to
// whole strips of 8 columns.
__host__ __device__ constexpr int filter_columns(int compiled_width, int width) {
  return compiled_width ? compiled_width : ceil_divide(width, kStrip) * kStrip;
}

inline ForwardPlan plan_forward(const Shape& shape, bool flip, int compiled_width) {
  ForwardPlan plan{};
  plan.shape = shape;
  plan.flip = flip;
  const int filter_width = filter_columns(compiled_width, shape.kernel_width);
  const int strips = ceil_divide(shape.width, kStrip), groups = ceil_divide(shape.height, kRows);
  plan.tiles_x = ceil_divide(strips, 8);
  plan.strips = ceil_divide(strips, plan.tiles_x);
  plan.pitch = strip_offset(plan.strips - 1 + ceil_divide(filter_width + kStrip - 1, kStrip));
  plan.filter_row = ceil_divide(filter_width, 4) * 4;
  plan.filter_pitch = skewed_pitch(shape.kernel_height * plan.filter_row);

  auto set = [&](int groups_per_block, int planes) {
    plan.tiles_y = ceil_divide(groups, groups_per_block);
    plan.groups = ceil_divide(groups, plan.tiles_y);
    plan.planes_per_block = planes;
    const int rows = std::min(shape.height, plan.groups * kRows + shape.kernel_height - 1);
    plan.plane_pitch = skewed_pitch(rows * plan.pitch);
    const int64_t filters = std::min<int64_t>(planes, ceil_divide(planes - 1, shape.batch) + 1);
    plan.shared_bytes =
        planes * sizeof(int64_t) + planes % 2 * sizeof(int64_t) +
        (filters * plan.filter_pitch + static_cast<int64_t>(planes) * plan.plane_pitch) *
            sizeof(float);
    plan.blocks = int64_t{plan.tiles_x} * plan.tiles_y * ((shape.planes() + planes - 1) / planes);
  };
  set(kDirectThreads / plan.strips, 1);
  // Small problems get smaller blocks, large halos smaller tiles.
  while (plan.groups > 1 && (plan.blocks < 256 || plan.shared_bytes > kMaxSharedBytes ||
                             (plan.shared_bytes > kTargetSharedBytes && plan.groups > 8))) {
    set(ceil_divide(plan.groups, 2), 1);
  }
  for (int planes = kDirectThreads / (plan.strips * plan.groups); planes > 1; --planes) {
    if (planes > shape.planes()) continue;
    const ForwardPlan single = plan;
    set(plan.groups, planes);
    if (plan.shared_bytes <= kTargetSharedBytes && plan.blocks >= 256) break;
    plan = single;
  }
  plan.load_lanes = lanes_for(plan.strips * kStrip + filter_width - 1);
  plan.store_lanes = lanes_for(plan.strips * kStrip);
  plan.threads = ceil_divide(plan.strips * plan.groups * plan.planes_per_block, 32) * 32;
  return plan;
}

// Adds to one output row what `columns` columns of a filter row contribute. window[i] is the input
// at column i of the strip.
template <int kColumns>
__device__ __forceinline__ void multiply_row(float (&sums)[kStrip], const float* window,
                                             const float* filter_row) {
#pragma unroll
  for (int first = 0; first < kColumns; first += 4) {
    const float4 weights = *reinterpret_cast<const float4*>(filter_row + first);
#pragma unroll
    for (int tap = 0; tap < 4; ++tap) {
      if (first + tap >= kColumns) break;
      const float weight = tap == 0   ? weights.x
                           : tap == 1 ? weights.y
                           : tap == 2 ? weights.z
                                      : weights.w;
#pragma unroll
      for (int s = 0; s < kStrip; ++s) sums[s] += weight * window[s + first + tap];
    }
  }
}

// kWidth is the filter's width, or 0 for any.
template <class T, int kWidth>
__global__ void __launch_bounds__(kDirectThreads)
    direct_forward_kernel(const T* __restrict__ x, const T* __restrict__ weight,
                          const T* __restrict__ bias, T* __restrict__ out, const ForwardPlan plan) {
  UNIREPLKNET_DYNAMIC_SHARED(int64_t, starts);
  const Shape& shape = plan.shape;
  const int filter_width = kWidth ? kWidth : shape.kernel_width;
  const int filter_height = shape.kernel_height;

  const unsigned tiles = plan.tiles_x * plan.tiles_y;
  const unsigned tile_index = blockIdx.x % tiles,
                 first_plane = blockIdx.x / tiles * plan.planes_per_block;
  const int y_begin = tile_index / plan.tiles_x * plan.groups * kRows;
  const int x_begin = tile_index % plan.tiles_x * plan.strips * kStrip;
  const int planes = min(plan.planes_per_block, static_cast<int>(shape.planes() - first_plane));
  const unsigned batch = static_cast<unsigned>(shape.batch), first_channel = first_plane / batch;
  const int filters = (first_plane + planes - 1) / batch - first_channel + 1;

  float* filter =
      reinterpret_cast<float*>(starts + plan.planes_per_block + plan.planes_per_block % 2);
  float* tile =
      filter + min(plan.planes_per_block, ceil_divide(plan.planes_per_block - 1, batch) + 1) *
                   plan.filter_pitch;

  for (int plane = threadIdx.x; plane < planes; plane += blockDim.x) {
    starts[plane] = plane_start(first_plane + plane, shape);
  }
  const int taps = filter_height * filter_width;
  for (int index = threadIdx.x; index < filters * filter_height * plan.filter_row;
       index += blockDim.x) {
    const int row = index / plan.filter_row, column = index - row * plan.filter_row;
    const int slot = row / filter_height,
              tap = (row - slot * filter_height) * filter_width + column;
    float value = 0.f;
    if (column < filter_width) {
      const int64_t channel = first_channel + slot;
      value = to_float(weight[channel * taps + (plan.flip ? taps - 1 - tap : tap)]);
    }
    filter[slot * (plan.filter_pitch - filter_height * plan.filter_row) + index] = value;
  }
  __syncthreads();

  const int row_begin = max(0, y_begin - shape.padding_height());
  const int row_end = min(shape.height, y_begin + plan.groups * kRows + shape.padding_height());
  const int rows = row_end - row_begin;
  load_tile(tile, plan.plane_pitch, plan.pitch, x, starts, planes, row_begin, rows,
            x_begin - shape.padding_width(),
            plan.strips * kStrip + filter_columns(kWidth, filter_width) - 1, shape.width,
            plan.load_lanes);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();

  const int strip = threadIdx.x % plan.strips, rest = threadIdx.x / plan.strips;
  const int plane = rest % plan.planes_per_block, group = rest / plan.planes_per_block;
  const bool active = plane < planes && group < plan.groups;
  float* own_tile = tile + plane * plan.plane_pitch;
  float sums[kRows][kStrip] = {};
  float offset = 0.f;
  if (active) {
    const unsigned channel = (first_plane + plane) / batch;
    if (bias) offset = to_float(bias[channel]);
    const float* own_filter = filter + (channel - first_channel) * plan.filter_pitch;
    // The stored row that meets filter row 0 of the thread's first output row; it may lie above the
    // map.
    const int top = y_begin + group * kRows - shape.padding_height() - row_begin;
    for (int dy = 0; dy < filter_height + kRows - 1; ++dy) {
      if (static_cast<unsigned>(top + dy) >= static_cast<unsigned>(rows)) continue;
      const float* row = own_tile + (top + dy) * plan.pitch;
      if constexpr (kWidth != 0) {
        constexpr int kStrips = (kWidth + kStrip - 1 + kStrip - 1) / kStrip;
        float window[kStrips * kStrip];
#pragma unroll
        for (int i = 0; i < kStrips; ++i)
          load_strip(window + i * kStrip, row + strip_offset(strip + i));
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (static_cast<unsigned>(dy - r) >= static_cast<unsigned>(filter_height)) continue;
          multiply_row<kWidth>(sums[r], window, own_filter + (dy - r) * plan.filter_row);
        }
      } else {
        float window[2 * kStrip];
        load_strip(window, row + strip_offset(strip));
        for (int first = 0; first < plan.filter_row; first += kStrip) {
          load_strip(window + kStrip, row + strip_offset(strip + first / kStrip + 1));
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            if (static_cast<unsigned>(dy - r) >= static_cast<unsigned>(filter_height)) continue;
            multiply_row<kStrip>(sums[r], window, own_filter + (dy - r) * plan.filter_row + first);
          }
#pragma unroll
          for (int s = 0; s < kStrip; ++s) window[s] = window[kStrip + s];
        }
      }
    }
  }
  __syncthreads();

  // The tile's memory now takes the outputs; there are at most as many rows of them as of inputs.
  const int out_rows = min(plan.groups * kRows, shape.height - y_begin);
  if (active) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (group * kRows + r >= out_rows) break;
      auto* target = reinterpret_cast<float4*>(own_tile + (group * kRows + r) * plan.pitch +
                                               strip_offset(strip));
      target[0] = make_float4(sums[r][0] + offset, sums[r][1] + offset, sums[r][2] + offset,
                              sums[r][3] + offset);
      target[1] = make_float4(sums[r][4] + offset, sums[r][5] + offset, sums[r][6] + offset,
                              sums[r][7] + offset);
    }
  }
  __syncthreads();
  const int columns = min(plan.strips * kStrip, shape.width - x_begin);
  const int lane = threadIdx.x % plan.store_lanes, teams = blockDim.x / plan.store_lanes;
  int stored_plane = 0;
  for (int row = threadIdx.x / plan.store_lanes;; row += teams) {
    while (row >= out_rows) {
      row -= out_rows;
      if (++stored_plane >= planes) return;
    }
    T* target =
        out + starts[stored_plane] + static_cast<int64_t>(y_begin + row) * shape.width + x_begin;
    const float* source = tile + stored_plane * plan.plane_pitch + row * plan.pitch;
    for (int column = lane; column < columns; column += plan.store_lanes) {
      target[column] = from_float<T>(source[column_offset(column)]);
    }
  }
}

template <class T, int kWidth>
cudaError_t launch_direct_forward(const Shape& shape, const T* x, const T* weight, const T* bias,
                                  bool flip, T* out, cudaStream_t stream) {
  const ForwardPlan plan = plan_forward(shape, flip, kWidth);
  if (plan.blocks > 0x7fffffff || shape.planes() > 0x7fffffff) return cudaErrorInvalidConfiguration;
  return launch(direct_forward_kernel<T, kWidth>, dim3(static_cast<unsigned>(plan.blocks)),
                dim3(plan.threads), plan.shared_bytes, stream, x, weight, bias, out, plan);
}

}  // namespace unireplknet::cuda
