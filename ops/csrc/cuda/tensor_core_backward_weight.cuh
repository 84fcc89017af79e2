// Gradient of the filter on the tensor cores. For one channel and kernel row i,
//
//   D[m, n] += sum_k X[k, m] dY[k, n]
//
//   k   16 segments (see tensor_core.cuh), row by row: image, group of rows, run of 8 kBlocks
//   columns m   input columns, 16 at a time, from the margin to the left of n on n   8 neighbouring
//   columns of grad_output
//
// Only the distance m - n says to which tap a product belongs, so all columns, rows and images add
// to the same accumulators, and the diagonals of D are summed once at the end: grad_weight[i, j] =
// sum_n D[j + n + shift, n]. Both operands are read from row-major rows by ldmatrix.trans. A warp
// has up to kTapRows kernel rows; an input row, read once, meets the rows of grad_output that these
// kernel rows pair it with, which are in registers. Blocks share the images among them; each writes
// fp32 sums, and a second kernel adds them in a fixed order.
#pragma once

#include "tensor_core.cuh"

namespace unireplknet::cuda {

namespace tensor_core {

constexpr int kTapRows = 4;
constexpr int kWeightBlocks = 2;
constexpr int kMaxWarps = 8;
constexpr int kDiagonalPitch = 9;

struct BackwardWeightPlan {
  TileLayout x_layout, grad_layout;
  int batch_groups, images;  // images of a unit, the part of the maps that a block holds at a time
  int row_tiles, tile_rows;  // rows of grad_output in a unit, a multiple of the layouts' group_rows
  int column_tiles,
      tile_columns;           // columns of grad_output in a unit, a multiple of the segment's width
  int splits;                 // blocks that share the units of a channel
  int tap_groups, positions;  // warps: groups of kernel rows, and shares of the segments
  int height, width, kernel_height, kernel_width;
  int64_t batch, channels;
  int x_vector, grad_vector;  // elements of a copy from global memory
  int grad_offset, zero_offset, shared_bytes;

  int threads() const { return 32 * tap_groups * positions; }
  int64_t units() const { return int64_t{batch_groups} * row_tiles * column_tiles; }
};

template <class T, int kChunks>
__global__ void __launch_bounds__(32 * kMaxWarps, 2)
    backward_weight_kernel(const T* __restrict__ grad_output, const T* __restrict__ x,
                           T* __restrict__ grad_weight, float* __restrict__ partial,
                           const BackwardWeightPlan plan) {
  constexpr int kTiles = (kChunks + 1) / 2;
  constexpr int kLoaded = kWeightBlocks + kChunks - 1;
  UNIREPLKNET_DYNAMIC_SHARED(unsigned char, shared);

  const int64_t channel = blockIdx.x % plan.channels;
  const int split = static_cast<int>(blockIdx.x / plan.channels);
  const int threads = blockDim.x;
  const int lane = threadIdx.x % 32;
  const int warp = uniform_warp();
  const int tap_group = warp % plan.tap_groups, position = warp / plan.tap_groups;
  // Kernel rows of this warp, three or four where there are that many.
  const int first_tap = tap_group * plan.kernel_height / plan.tap_groups;
  const int tap_rows = (tap_group + 1) * plan.kernel_height / plan.tap_groups - first_tap;

  const int padding = (plan.kernel_height - 1) / 2;
  const int64_t plane = int64_t{plan.height} * plan.width;
  const int64_t image_elements = plan.channels * plane;
  const int group_rows = plan.grad_layout.group_rows;
  const int64_t units = int64_t{plan.batch_groups} * plan.row_tiles * plan.column_tiles;

  for (int i = threadIdx.x; i < 4 * (kWeightBlocks + kChunks); i += threads) {
    reinterpret_cast<uint32_t*>(shared + plan.zero_offset)[i] = 0;
  }
  const SharedAddress zeros = shared_address(shared + plan.zero_offset) + lane / 16 * 16;

  float sums[kTapRows][kTiles][4] = {};
  for (int64_t unit = units * split / plan.splits; unit < units * (split + 1) / plan.splits;
       ++unit) {
    const int left = static_cast<int>(unit % plan.column_tiles) * plan.tile_columns;
    const int top = static_cast<int>(unit / plan.column_tiles % plan.row_tiles) * plan.tile_rows;
    const int64_t image = unit / plan.column_tiles / plan.row_tiles * plan.images;
    const int64_t first_plane = image * image_elements + channel * plane;

    TileBounds bounds;
    bounds.images =
        static_cast<int>(plan.batch - image < plan.images ? plan.batch - image : plan.images);
    bounds.width = plan.width;
    bounds.first_row = top;
    bounds.first_index = 0;
    bounds.rows = min(plan.height, top + plan.tile_rows) - top;
    bounds.first_column = left;
    copy_tile(plan.grad_vector, grad_output + first_plane, image_elements, plan.grad_layout, bounds,
              shared + plan.grad_offset);
    const int groups = (bounds.rows + group_rows - 1) / group_rows;
    bounds.first_row = top > padding ? top - padding : 0;
    bounds.first_index = bounds.first_row - (top - padding);
    bounds.rows = min(plan.height, top + plan.tile_rows + padding) - bounds.first_row;
    bounds.first_column = left - plan.x_layout.margin;
    copy_tile(plan.x_vector, x + first_plane, image_elements, plan.x_layout, bounds, shared);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    const int tile_width = min(plan.tile_columns, plan.width - left);
    const int runs = (tile_width + 8 * kWeightBlocks - 1) / (8 * kWeightBlocks);
    const int segments = bounds.images * groups * runs;
    for (int first = 16 * position; first < segments; first += 16 * plan.positions) {
      // Lane l gives the addresses of segment l % 16. Without a segment all its rows are zeros.
      const int segment = first + lane % 16;
      const int group = segment / bounds.images % groups;
      const int run = segment / bounds.images / groups;
      const int lane_row = segment < segments ? top + group * group_rows : 1 << 24;
      const SharedAddress lane_column = run * 16 * kWeightBlocks + lane / 16 * 16;
      const SharedAddress grad_address = shared_address(shared + plan.grad_offset) +
                                         segment % bounds.images * plan.grad_layout.image_stride +
                                         group * plan.grad_layout.group_stride + lane_column;
      const SharedAddress x_address = shared_address(shared) +
                                      segment % bounds.images * plan.x_layout.image_stride +
                                      group * plan.x_layout.group_stride -
                                      plan.x_layout.offset(bounds.first_index) + lane_column;

      // What at least one of the segments needs.
      const int last = min(first + 15, segments - 1);
      const int first_run = first / bounds.images / groups,
                last_run = last / bounds.images / groups;
      const int first_group = first_run == last_run ? first / bounds.images % groups : 0;
      const int last_group = first_run == last_run ? last / bounds.images % groups : groups - 1;
      const int begin = max(0, padding - first_tap - top - last_group * group_rows);
      const int end = min(group_rows + tap_rows - 1,
                          plan.height + padding - first_tap - top - first_group * group_rows);
      uint32_t needed = 0;
#pragma unroll
      for (int t = 0; t < kWeightBlocks; ++t) {
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          const int column = left + 8 * (t + 2 * j) - plan.x_layout.margin;
          if (left + 8 * (kWeightBlocks * first_run + t) < plan.width &&
              column + 8 * kWeightBlocks * last_run + (2 * j + 1 < kChunks ? 15 : 7) >= 0 &&
              column + 8 * kWeightBlocks * first_run < plan.width) {
            needed |= 1u << (t * kTiles + j);
          }
        }
      }

      // Step s: row s of a segment of grad_output comes into the registers s % kTapRows; input row
      // s, counted from the one that kernel row first_tap pairs with row 0, meets row s - b of
      // grad_output for kernel row first_tap + b.
      uint32_t grad[kTapRows][kWeightBlocks][2];
      const int begin_base = max(0, begin - (kTapRows - 1)) / kTapRows * kTapRows;
      int row_in_group = (begin_base + first_tap) % group_rows;
      const int group_gap = plan.x_layout.group_stride - group_rows * plan.x_layout.pitch;
      SharedAddress x_row = x_address + plan.x_layout.offset(begin_base + first_tap);
      for (int base = begin_base; base < end; base += kTapRows) {
#pragma unroll
        for (int u = 0; u < kTapRows; ++u) {
          const int step = base + u;
          if (step < group_rows) {
            const SharedAddress address = lane_row + step < plan.height
                                              ? grad_address + step * plan.grad_layout.pitch
                                              : zeros;
            uint32_t chunks[4];
            ldmatrix_trans(chunks, address);
#pragma unroll
            for (int t = 0; t < kWeightBlocks; ++t) {
              grad[u][t][0] = chunks[2 * t];
              grad[u][t][1] = chunks[2 * t + 1];
            }
          }
          if (step >= begin && step < end) {
            const int row = lane_row + step + first_tap - padding;
            const SharedAddress address = row >= 0 && row < plan.height ? x_row : zeros;
            uint32_t columns[kLoaded + 1][2];
#pragma unroll
            for (int chunk = 0; chunk < kLoaded; chunk += 2) {
              if (chunk + 1 < kLoaded) {
                uint32_t chunks[4];
                ldmatrix_trans(chunks, address + 16 * chunk);
                columns[chunk][0] = chunks[0];
                columns[chunk][1] = chunks[1];
                columns[chunk + 1][0] = chunks[2];
                columns[chunk + 1][1] = chunks[3];
              } else {
                ldmatrix_trans(columns[chunk], address + 16 * chunk);
              }
            }
            // Beside an odd last chunk; its products are on no diagonal of a tap.
            columns[kLoaded][0] = columns[kLoaded - 1][0];
            columns[kLoaded][1] = columns[kLoaded - 1][1];
#pragma unroll
            for (int b = 0; b < kTapRows; ++b) {
              if (b >= tap_rows || step < b || step - b >= group_rows) continue;
              const uint32_t (&grad_row)[kWeightBlocks][2] = grad[(u - b + kTapRows) % kTapRows];
#pragma unroll
              for (int t = 0; t < kWeightBlocks; ++t) {
#pragma unroll
                for (int j = 0; j < kTiles; ++j) {
                  if (!(needed >> (t * kTiles + j) & 1)) continue;
                  const uint32_t (&low)[2] = columns[t + 2 * j];
                  const uint32_t (&high)[2] = columns[t + 2 * j + 1];
                  mma<T>(sums[b][j], {low[0], high[0], low[1], high[1]},
                         {grad_row[t][0], grad_row[t][1]});
                }
              }
            }
          }
          x_row += plan.x_layout.pitch;
          if (++row_in_group == group_rows) {
            row_in_group = 0;
            x_row += group_gap;
          }
        }
      }
    }
    __syncthreads();
  }

  // The tiles are no longer needed: their memory takes the accumulators of one kernel row a warp,
  // and the sums of diagonals.
  float* accumulators = reinterpret_cast<float*>(shared) + warp * (16 * kTiles * kDiagonalPitch);
  float* sums_of_taps =
      reinterpret_cast<float*>(shared) + threads / 32 * (16 * kTiles * kDiagonalPitch);
  const int taps = plan.kernel_height * plan.kernel_width;
  const int shift = plan.x_layout.margin - (plan.kernel_width - 1) / 2;
#pragma unroll
  for (int b = 0; b < kTapRows; ++b) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        accumulators[(16 * j + lane / 4 + i / 2 * 8) * kDiagonalPitch + lane % 4 * 2 + i % 2] =
            sums[b][j][i];
      }
    }
    __syncwarp();
    if (b < tap_rows && lane < plan.kernel_width) {
      float sum = 0.f;
#pragma unroll
      for (int n = 0; n < 8; ++n) sum += accumulators[(lane + shift + n) * kDiagonalPitch + n];
      sums_of_taps[position * taps + (first_tap + b) * plan.kernel_width + lane] = sum;
    }
    __syncwarp();
  }
  __syncthreads();
  for (int tap = threadIdx.x; tap < taps; tap += threads) {
    float sum = 0.f;
    for (int share = 0; share < plan.positions; ++share) sum += sums_of_taps[share * taps + tap];
    if (plan.splits == 1) {
      grad_weight[channel * taps + tap] = from_float<T>(sum);
    } else {
      partial[(split * plan.channels + channel) * taps + tap] = sum;
    }
  }
}

// Adds the sums of the blocks, in their order, and rounds.
template <class T>
__global__ void __launch_bounds__(256)
    reduce_kernel(const float* __restrict__ partial, T* __restrict__ grad_weight, int splits,
                  int64_t elements) {
  const int64_t i = blockIdx.x * int64_t{256} + threadIdx.x;
  if (i >= elements) return;
  float sum = 0.f;
  for (int split = 0; split < splits; ++split) sum += partial[split * elements + i];
  grad_weight[i] = from_float<T>(sum);
}

// Cycles that a launch may take; see forward_cost.
inline double backward_weight_cost(const Shape& shape, const BackwardWeightPlan& plan) {
  const int chunks = chunks_of(shape.kernel_width);
  const int group_rows = plan.grad_layout.group_rows;
  const int groups = divide_up(std::min(plan.tile_rows, shape.height), group_rows);
  const int runs = divide_up(std::min(plan.tile_columns, shape.width), 8 * kWeightBlocks);
  const int tiles = divide_up(plan.images * groups * runs, 16);
  const int rounds = divide_up(tiles, plan.positions);
  const double tensor =
      double(group_rows) * shape.kernel_height * kWeightBlocks * ((chunks + 1) / 2) / 0.63;
  const double reads =
      plan.tap_groups * (2. * (kWeightBlocks + chunks - 1) * (group_rows + kTapRows - 1) +
                         2. * kWeightBlocks * group_rows);
  const double compute =
      std::max(tensor, reads) * (tiles + 0.5 * (rounds * plan.positions - tiles));
  const double rows = std::min(plan.tile_rows + shape.kernel_height - 1, shape.height);
  const double memory =
      2. * plan.images *
      (rows * plan.x_layout.columns + double(plan.tile_rows) * plan.grad_layout.columns) / 18;
  const int64_t units = divide_up(plan.units(), int64_t{plan.splits});
  const int64_t count = plan.splits * shape.channels;
  const int resident =
      std::min<int>(kPlanSharedBytes / (plan.shared_bytes + 1024), 512 / plan.threads());
  const double busy =
      double(divide_up(count, int64_t{kPlanProcessors})) * units * std::max(compute, memory);
  const double latency =
      (2500. * units + 2500.) * double(divide_up(count, int64_t{kPlanProcessors} * resident)) +
      12. * units * rounds * (group_rows + kTapRows) * kTapRows * kWeightBlocks *
          ((chunks + 1) / 2);
  return busy + latency;
}

inline BackwardWeightPlan plan_backward_weight(const Shape& shape, const void* grad_output,
                                               const void* x) {
  const int chunks = chunks_of(shape.kernel_width), tiles = (chunks + 1) / 2;
  const int margin = margin_of(shape.kernel_width);
  const int taps = shape.kernel_height * shape.kernel_width;
  BackwardWeightPlan best{};
  double best_cost = 0;
  BackwardWeightPlan plan{};
  plan.height = shape.height;
  plan.width = shape.width;
  plan.kernel_height = shape.kernel_height;
  plan.kernel_width = shape.kernel_width;
  plan.batch = shape.batch;
  plan.channels = shape.channels;
  plan.x_vector = copy_vector(shape.width, margin, x);
  plan.grad_vector = copy_vector(shape.width, 8, grad_output);
  plan.tap_groups = divide_up(shape.kernel_height, kTapRows);
  for (plan.positions = 1; plan.positions * plan.tap_groups <= kMaxWarps; plan.positions *= 2) {
    for (plan.images = 16; plan.images >= 1; plan.images /= 2) {
      if (plan.images > 1 && plan.images / 2 >= shape.batch) continue;
      plan.batch_groups = static_cast<int>(divide_up(shape.batch, int64_t{plan.images}));
      for (int row_tiles = 1; row_tiles <= shape.height; row_tiles *= 2) {
        for (int groups = 1; groups <= 16; groups *= 2) {
          const int group_rows = divide_up(shape.height, row_tiles * groups);
          plan.tile_rows = group_rows * groups;
          plan.row_tiles = divide_up(shape.height, plan.tile_rows);
          if (plan.row_tiles < row_tiles || (groups > 1 && group_rows < kTapRows)) break;
          const int rows = std::min(shape.height, plan.tile_rows + shape.kernel_height - 1);
          for (int column_tiles = 1;; column_tiles *= 2) {
            plan.tile_columns = round_up(divide_up(shape.width, column_tiles), 8 * kWeightBlocks);
            plan.column_tiles = divide_up(shape.width, plan.tile_columns);
            const int columns =
                round_up(plan.tile_columns + margin * (column_tiles == 1 ? 1 : 2), 8);
            plan.x_layout =
                make_layout(margin, columns, rows, group_rows, plan.images, plan.x_vector);
            plan.grad_layout =
                make_layout(0, plan.tile_columns, std::min(shape.height, plan.tile_rows),
                            group_rows, plan.images, plan.grad_vector);
            plan.grad_offset = plan.images * plan.x_layout.image_stride;
            plan.zero_offset = plan.grad_offset + plan.images * plan.grad_layout.image_stride;
            const int tile_bytes = plan.zero_offset + 16 * (kWeightBlocks + chunks);
            const int sum_bytes =
                4 * (plan.threads() / 32 * 16 * tiles * kDiagonalPitch + plan.positions * taps);
            plan.shared_bytes = std::max(tile_bytes, sum_bytes);
            if (plan.shared_bytes <= static_cast<int>(kMaxSharedBytes) ||
                plan.tile_columns == 8 * kWeightBlocks)
              break;
          }
          if (plan.shared_bytes > static_cast<int>(kMaxSharedBytes)) continue;
          // About three blocks for each place on the device, but not more than there are units.
          const int resident =
              std::min<int>(kPlanSharedBytes / (plan.shared_bytes + 1024), 512 / plan.threads());
          const int64_t wanted = divide_up(int64_t{3} * kPlanProcessors * resident, shape.channels);
          const int64_t per_block = divide_up(plan.units(), std::min(plan.units(), wanted));
          plan.splits = static_cast<int>(divide_up(plan.units(), per_block));
          const double cost = backward_weight_cost(shape, plan);
          if (best.images != 0 && cost >= best_cost) continue;
          best = plan;
          best_cost = cost;
        }
      }
    }
  }
  return best;
}

template <class T, int kChunks>
cudaError_t launch_backward_weight(const BackwardWeightPlan& plan, const T* grad_output, const T* x,
                                   T* grad_weight, float* workspace, cudaStream_t stream) {
  const int64_t count = plan.splits * plan.channels;
  if (count > 0x7fffffff) return cudaErrorInvalidConfiguration;
  const cudaError_t error = launch(
      backward_weight_kernel<T, kChunks>, dim3(static_cast<unsigned>(count)), dim3(plan.threads()),
      plan.shared_bytes, stream, grad_output, x, grad_weight, workspace, plan);
  if (error != cudaSuccess || plan.splits == 1) return error;
  const int64_t elements = plan.channels * plan.kernel_height * plan.kernel_width;
  return launch(reduce_kernel<T>, dim3(static_cast<unsigned>(divide_up(elements, int64_t{256}))),
                dim3(256), 0, stream, workspace, grad_weight, plan.splits, elements);
}

inline size_t backward_weight_workspace(const Shape& shape) {
  const BackwardWeightPlan plan = plan_backward_weight(shape, nullptr, nullptr);
  return sizeof(float) * plan.splits * shape.channels * shape.kernel_height * shape.kernel_width;
}

}  // namespace tensor_core

template <class T>
cudaError_t tensor_core_backward_weight(const Shape& shape, const T* grad_output, const T* x,
                                        T* grad_weight, float* workspace, cudaStream_t stream) {
  const tensor_core::BackwardWeightPlan plan =
      tensor_core::plan_backward_weight(shape, grad_output, x);
  switch (chunks_of(shape.kernel_width)) {
    case 2:
      return tensor_core::launch_backward_weight<T, 2>(plan, grad_output, x, grad_weight, workspace,
                                                       stream);
    case 3:
      return tensor_core::launch_backward_weight<T, 3>(plan, grad_output, x, grad_weight, workspace,
                                                       stream);
    case 4:
      return tensor_core::launch_backward_weight<T, 4>(plan, grad_output, x, grad_weight, workspace,
                                                       stream);
    default:
      return tensor_core::launch_backward_weight<T, 5>(plan, grad_output, x, grad_weight, workspace,
                                                       stream);
  }
}

}  // namespace unireplknet::cuda
