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
//
// Where the width is not compiled in, filter rows are filled up with zeros to a multiple of 8.
// There a value that is not finite makes NaN of outputs up to 7 columns to the left of those that
// see it.
#pragma once

#include "direct_tile.cuh"

namespace unireplknet::cuda {

constexpr int kRows = 4;  // output rows of a thread

struct ForwardPlan {
  Shape shape;
  bool flip;
  Divisor batch;
  // A block's threads: strips along w, fastest; planes; groups of kRows rows.
  Divisor strips, planes_per_block;
  int groups;
  Divisor tiles_x, tiles;  // of a plane
  int shift;               // columns that the tile starts left of the filter's reach
  int pitch, plane_pitch, filter_row, filter_pitch, filter_slots;
  RowCopy load, store;
  int threads;
  int64_t blocks;
  size_t shared_bytes;
};

// Widths of compiled filters are exact; otherwise (kWidth 0) filters are padded to whole strips.
constexpr int filter_columns(int compiled_width, int width) {
  return compiled_width ? compiled_width : (width + kStrip - 1) / kStrip * kStrip;
}

inline ForwardPlan plan_forward(const Shape& shape, bool flip, int compiled_width, const void* x,
                                const void* out, size_t element_bytes) {
  ForwardPlan plan{};
  plan.shape = shape;
  plan.flip = flip;
  plan.batch = Divisor(static_cast<unsigned>(shape.batch));
  const int filter_width = filter_columns(compiled_width, shape.kernel_width);
  plan.shift = compiled_width ? window_shift(shape.padding_width()) : 0;
  const int tiles_x = ceil_divide(ceil_divide(shape.width, kStrip), 8);
  const int strips = ceil_divide(ceil_divide(shape.width, kStrip), tiles_x);
  plan.strips = Divisor(strips);
  plan.tiles_x = Divisor(tiles_x);
  const int reach = plan.shift + filter_width - 1;  // columns of a window beyond the strip
  plan.pitch = strip_offset(strips - 1 + ceil_divide(kStrip + reach, kStrip));
  plan.filter_row = ceil_divide(filter_width, 4) * 4;
  plan.filter_pitch = skewed_pitch(shape.kernel_height * plan.filter_row);

  const int groups = ceil_divide(shape.height, kRows);
  auto set = [&](int groups_per_block, int planes) {
    const int tiles_y = ceil_divide(groups, groups_per_block);
    plan.tiles = Divisor(tiles_x * tiles_y);
    plan.groups = ceil_divide(groups, tiles_y);
    plan.planes_per_block = Divisor(planes);
    const int rows = std::min(shape.height, plan.groups * kRows + shape.kernel_height - 1);
    plan.plane_pitch = skewed_pitch(rows * plan.pitch);
    plan.filter_slots =
        static_cast<int>(std::min<int64_t>(planes, ceil_divide(planes - 1, shape.batch) + 1));
    plan.shared_bytes = (planes + planes % 2) * sizeof(int64_t) +
                        sizeof(float) * (plan.filter_slots * plan.filter_pitch +
                                         static_cast<size_t>(planes) * plan.plane_pitch);
    plan.blocks = int64_t{tiles_x} * tiles_y * ((shape.planes() + planes - 1) / planes);
  };
  set(kDirectThreads / strips, 1);
  // Small problems get smaller blocks, large halos smaller tiles.
  while (plan.groups > 1 && (plan.blocks < 256 || plan.shared_bytes > kMaxSharedBytes ||
                             (plan.shared_bytes > kTargetSharedBytes && plan.groups > 8))) {
    set(ceil_divide(plan.groups, 2), 1);
  }
  const ForwardPlan single = plan;
  for (int planes = kDirectThreads / (strips * plan.groups); planes > 1; --planes) {
    if (planes > shape.planes()) continue;
    set(plan.groups, planes);
    if (plan.shared_bytes <= kTargetSharedBytes && plan.blocks >= 256) break;
    plan = single;
  }
  plan.threads = ceil_divide(strips * plan.groups * plan.planes_per_block.value(), 32) * 32;
  plan.load = plan_row_copy(strips * kStrip + reach, shape.padding_width() + plan.shift,
                            shape.width, plan.threads, x, element_bytes);
  plan.store =
      plan_row_copy(strips * kStrip, kStrip, shape.width, plan.threads, out, element_bytes);
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
__global__ void __launch_bounds__(kDirectThreads,
                                  resident_blocks(kRows* kStrip + 2 * kStrip + kWidth))
    direct_forward_kernel(const T* __restrict__ x, const T* __restrict__ weight,
                          const T* __restrict__ bias, T* __restrict__ out, const ForwardPlan plan) {
  UNIREPLKNET_DYNAMIC_SHARED(int64_t, starts);
  const Shape& shape = plan.shape;
  const int filter_width = kWidth ? kWidth : shape.kernel_width;
  const int filter_row = kWidth ? (kWidth + 3) / 4 * 4 : plan.filter_row;
  const int filter_height = shape.kernel_height;

  const int planes_per_block = plan.planes_per_block.value(), strips = plan.strips.value();
  const unsigned plane_group = plan.tiles.divide(blockIdx.x);
  const unsigned tile_index = blockIdx.x - plane_group * plan.tiles.value();
  const unsigned first_plane = plane_group * planes_per_block;
  const int tile_y = plan.tiles_x.divide(tile_index);
  const int y_begin = tile_y * plan.groups * kRows;
  const int x_begin = (tile_index - tile_y * plan.tiles_x.value()) * strips * kStrip;
  const int planes = min(planes_per_block, static_cast<int>(shape.planes() - first_plane));
  const unsigned first_channel = plan.batch.divide(first_plane);

  float* filter = reinterpret_cast<float*>(starts + planes_per_block + planes_per_block % 2);
  float* tile = filter + plan.filter_slots * plan.filter_pitch;

  // Planes are numbered channel first, so that the planes of a block share filters.
  for (int plane = threadIdx.x; plane < planes; plane += blockDim.x) {
    const unsigned channel = plan.batch.divide(first_plane + plane);
    const unsigned image = first_plane + plane - channel * plan.batch.value();
    starts[plane] = (image * shape.channels + channel) * shape.height * shape.width;
  }
  __syncthreads();

  const int row_begin = max(0, y_begin - shape.padding_height());
  const int row_end = min(shape.height, y_begin + plan.groups * kRows + shape.padding_height());
  const int rows = row_end - row_begin;
  const Planes held{starts, planes, shape.width, plan.pitch, plan.plane_pitch};
  load_tile(tile, x, held, row_begin, rows, x_begin - shape.padding_width() - plan.shift,
            plan.load);
  cp_async_commit();
  // While the tile is on its way.
  const int filters = plan.batch.divide(first_plane + planes - 1) - first_channel + 1;
  const int taps = filter_height * filter_width;
  for (int slot = 0; slot < filters; ++slot) {
    const T* source = weight + static_cast<int64_t>(first_channel + slot) * taps;
    for (int index = threadIdx.x; index < filter_height * filter_row; index += blockDim.x) {
      const int row = index / filter_row, column = index - row * filter_row;
      const int tap = row * filter_width + column;
      filter[slot * plan.filter_pitch + index] =
          column < filter_width ? to_float(source[plan.flip ? taps - 1 - tap : tap]) : 0.f;
    }
  }
  cp_async_wait<0>();
  __syncthreads();

  const int rest = plan.strips.divide(threadIdx.x), strip = threadIdx.x - rest * strips;
  const int group = plan.planes_per_block.divide(rest), plane = rest - group * planes_per_block;
  const bool active = plane < planes && group < plan.groups;
  float* own_tile = tile + plane * plan.plane_pitch;
  float sums[kRows][kStrip] = {};
  float offset = 0.f;
  if (active) {
    const unsigned channel = plan.batch.divide(first_plane + plane);
    if (bias) offset = to_float(bias[channel]);
    const float* own_filter = filter + (channel - first_channel) * plan.filter_pitch;
    // The stored row that meets filter row 0 of the thread's first output row; it may lie above the
    // map.
    const int top = y_begin + group * kRows - shape.padding_height() - row_begin;
    for (int dy = 0; dy < filter_height + kRows - 1; ++dy) {
      if (static_cast<unsigned>(top + dy) >= static_cast<unsigned>(rows)) continue;
      const float* row = own_tile + (top + dy) * plan.pitch;
      if constexpr (kWidth != 0) {
        constexpr int kShift = window_shift((kWidth - 1) / 2);
        constexpr int kStrips = (kShift + kWidth + kStrip - 1 + kStrip - 1) / kStrip;
        float window[kStrips * kStrip];
#pragma unroll
        for (int i = 0; i < kStrips; ++i)
          load_strip(window + i * kStrip, row + strip_offset(strip + i));
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (static_cast<unsigned>(dy - r) >= static_cast<unsigned>(filter_height)) continue;
          multiply_row<kWidth>(sums[r], window + kShift, own_filter + (dy - r) * filter_row);
        }
      } else {
        float window[2 * kStrip];
        load_strip(window, row + strip_offset(strip));
        for (int first = 0; first < filter_row; first += kStrip) {
          load_strip(window + kStrip, row + strip_offset(strip + first / kStrip + 1));
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            if (static_cast<unsigned>(dy - r) >= static_cast<unsigned>(filter_height)) continue;
            multiply_row<kStrip>(sums[r], window, own_filter + (dy - r) * filter_row + first);
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
  store_tile(out, tile, held, y_begin, out_rows, x_begin,
             min(strips * kStrip, shape.width - x_begin), plan.store);
}

template <class T, int kWidth>
cudaError_t launch_direct_forward(const Shape& shape, const T* x, const T* weight, const T* bias,
                                  bool flip, T* out, cudaStream_t stream) {
  const ForwardPlan plan = plan_forward(shape, flip, kWidth, x, out, sizeof(T));
  if (plan.blocks > 0x7fffffff || shape.planes() > 0x7fffffff) return cudaErrorInvalidConfiguration;
  return launch(direct_forward_kernel<T, kWidth>, dim3(static_cast<unsigned>(plan.blocks)),
                dim3(plan.threads), plan.shared_bytes, stream, x, weight, bias, out, plan);
}

}  // namespace unireplknet::cuda
