// Gradient of the filter on the tensor cores. For one channel and kernel row i,
//
//   D[m, n] += sum_k X[k, m] dY[k, n]
//
//   k: 16 segments (see tensor_core.cuh), row by row: image, group of rows, run of 8 kBlocks
//   columns
//
//   m: input columns, 16 at a time, from the margin to the left of n on
//
//   n: 8 neighbouring columns of grad_output
//
// Only the distance m - n says to which tap a product belongs, so all columns, rows and images add
// to the same accumulators, and the diagonals of D are summed once at the end: grad_weight[i, j] =
// sum_n D[j + n + shift, n]. Both operands are read from row-major rows by ldmatrix.trans. A warp
// has up to kTapRows kernel rows (4, or 7 as a variant); an input row, read once, meets the rows of
// grad_output that these kernel rows pair it with, which are in registers. Blocks share the images
// among them; each writes fp32 sums, and a second kernel adds them in a fixed order.
#pragma once

#include "reduction.cuh"
#include "tensor_core_plan.cuh"

namespace unireplknet::cuda {

namespace tensor_core {

template <class T, int kChunks, int kTapRows, int kStages>
__global__ void __launch_bounds__(32 * max_warps(kTapRows), least_blocks(kTapRows))
    backward_weight_kernel(const T* __restrict__ grad_output, const T* __restrict__ x,
                           T* __restrict__ grad_weight, float* __restrict__ partial,
                           const BackwardWeightPlan plan) {
  constexpr int kTiles = (kChunks + 1) / 2;
  constexpr int kProducts = kWeightBlocks * kTiles;
  UNIREPLKNET_DYNAMIC_SHARED(unsigned char, shared);

  const int channel = blockIdx.x % plan.channels;
  const int split = static_cast<int>(blockIdx.x / plan.channels);
  const int threads = blockDim.x;
  const int lane = threadIdx.x % 32;
  const int warp = uniform_warp();
  // Kernel rows of this warp. The last warps may have fewer; blocks differ in which warps these
  // are, so that the four schedulers of a processor share the work.
  const int turn = (blockIdx.x + blockIdx.x / plan.tap_groups) % plan.tap_groups;
  const int tap_group = (warp + turn) % plan.tap_groups, position = warp / plan.tap_groups;
  const int first_tap = tap_group * kTapRows;
  const int tap_rows = min(kTapRows, plan.kernel_height - first_tap);

  const int padding = (plan.kernel_height - 1) / 2;
  const int64_t plane = int64_t{plan.height} * plan.width;
  const int64_t image_elements = plan.channels * plane;
  const int group_rows = plan.grad_layout.group_rows;

  for (int i = threadIdx.x; i < zero_bytes(kChunks, kWeightBlocks) / 4; i += threads) {
    reinterpret_cast<uint32_t*>(shared + plan.zero_offset)[i] = 0;
  }
  const SharedAddress zeros = shared_address(shared + plan.zero_offset) + lane / 8 % 2 * 16;

  float sums[kTapRows][kTiles][4] = {};
  const int64_t units = plan.units();
  const int first_unit = static_cast<int>(units * split / plan.splits);
  const int last_unit = static_cast<int>(units * (split + 1) / plan.splits);
  // With two stages a unit is on its way while the block computes on the one before.
  for (int next = first_unit; next < last_unit + kStages - 1; ++next) {
    if (next < last_unit) {
      const int left = next % plan.column_tiles * plan.tile_columns;
      const int top = next / plan.column_tiles % plan.row_tiles * plan.tile_rows;
      const int image = next / plan.column_tiles / plan.row_tiles * plan.images;
      const int64_t first_plane = image * image_elements + channel * plane;
      unsigned char* target = shared + (next - first_unit) % kStages * plan.stage_bytes;

      TileBounds bounds;
      bounds.images = min(plan.images, plan.batch - image);
      bounds.width = plan.width;
      bounds.first_row = top;
      bounds.first_index = 0;
      bounds.rows = min(plan.height, top + plan.tile_rows) - top;
      bounds.first_column = left;
      copy_tile<0>(plan.grad_vector, grad_output + first_plane, image_elements, plan.grad_layout,
                   bounds, target + plan.grad_offset);
      bounds.first_row = top > padding ? top - padding : 0;
      bounds.first_index = bounds.first_row - (top - padding);
      bounds.rows = min(plan.height, top + plan.tile_rows + padding) - bounds.first_row;
      bounds.first_column = left - plan.x_layout.margin;
      copy_tile<0>(plan.x_vector, x + first_plane, image_elements, plan.x_layout, bounds, target);
    }
    cp_async_commit();
    const int unit = next - (kStages - 1);
    if (unit < first_unit) continue;
    cp_async_wait<kStages - 1>();
    __syncthreads();

    const int left = unit % plan.column_tiles * plan.tile_columns;
    const int top = unit / plan.column_tiles % plan.row_tiles * plan.tile_rows;
    const int images =
        min(plan.images, plan.batch - unit / plan.column_tiles / plan.row_tiles * plan.images);
    const int rows = min(plan.height, top + plan.tile_rows) - top;
    const int groups = (rows + group_rows - 1) / group_rows;
    const int first_index = max(0, padding - top);
    const SharedAddress held =
        shared_address(shared + (unit - first_unit) % kStages * plan.stage_bytes);
    const int tile_width = min(plan.tile_columns, plan.width - left);
    const int runs = (tile_width + 8 * kWeightBlocks - 1) / (8 * kWeightBlocks);
    const int segments = images * groups * runs;
    const float per_images = 1.f / images, per_groups = 1.f / groups;
    for (int first = 16 * position; first < segments; first += 16 * plan.positions) {
      // Lanes give addresses in the order of an operand's registers: segments 0 to 7 with the first
      // and with the second of two chunks, then segments 8 to 15. Without a segment all rows are
      // zeros.
      const int segment = first + lane % 8 + lane / 16 * 8;
      const int row_of_all = divide(segment, per_images);
      const int segment_image = segment - row_of_all * images;
      const int run = divide(row_of_all, per_groups);
      const int group = row_of_all - run * groups;
      const int lane_row = segment < segments ? top + group * group_rows : 1 << 24;
      const SharedAddress lane_column = run * 16 * kWeightBlocks + lane / 8 % 2 * 16;
      const SharedAddress grad_address = held + plan.grad_offset +
                                         segment_image * plan.grad_layout.image_stride +
                                         group * plan.grad_layout.group_stride + lane_column;
      const SharedAddress x_address = held + segment_image * plan.x_layout.image_stride +
                                      group * plan.x_layout.group_stride -
                                      plan.x_layout.template offset<0>(first_index) + lane_column;

      // What at least one of the segments needs.
      const int first_row = divide(first, per_images);
      const int last_row = divide(min(first + 15, segments - 1), per_images);
      const int first_run = divide(first_row, per_groups), last_run = divide(last_row, per_groups);
      const int first_group = first_run == last_run ? first_row - first_run * groups : 0;
      const int last_group = first_run == last_run ? last_row - last_run * groups : groups - 1;
      const int begin = max(0, padding - first_tap - top - last_group * group_rows);
      const int end = min(group_rows + tap_rows - 1,
                          plan.height + padding - first_tap - top - first_group * group_rows);
      // Products (t, j): the 16 columns from chunk t + 2 j on with the 8 columns of block t.
      uint32_t needed = 0;
#pragma unroll
      for (int product = 0; product < kProducts; ++product) {
        const int t = product / kTiles, j = product % kTiles;
        const int column = left + 8 * (t + 2 * j) - plan.x_layout.margin;
        if (left + 8 * (kWeightBlocks * first_run + t) < plan.width &&
            column + 8 * kWeightBlocks * last_run + (2 * j + 1 < kChunks ? 15 : 7) >= 0 &&
            column + 8 * kWeightBlocks * first_run < plan.width) {
          needed |= 1u << product;
        }
      }

      // Step s: row s of a segment of grad_output comes into the registers s % kTapRows; input row
      // s, counted from the one that kernel row first_tap pairs with row 0, meets row s - b of
      // grad_output for kernel row first_tap + b.
      uint32_t grad[kTapRows][kWeightBlocks][2];
      const int first_base = max(0, begin - (kTapRows - 1)) / kTapRows * kTapRows;
      int row_in_group = (first_base + first_tap) % group_rows;
      const int group_gap = plan.x_layout.group_stride - group_rows * plan.x_layout.pitch;
      SharedAddress x_row = x_address + plan.x_layout.template offset<0>(first_base + first_tap);
      for (int base = first_base; base < end; base += kTapRows) {
#pragma unroll
        for (int u = 0; u < kTapRows; ++u) {
          const int step = base + u;
          if (step < group_rows) {
            uint32_t chunks[4];
            ldmatrix_trans(chunks, lane_row + step < plan.height
                                       ? grad_address + step * plan.grad_layout.pitch
                                       : zeros);
#pragma unroll
            for (int t = 0; t < kWeightBlocks; ++t) {
              grad[u][t][0] = chunks[t];
              grad[u][t][1] = chunks[t + 2];
            }
          }
          if (step >= begin && step < end) {
            const int row = lane_row + step + first_tap - padding;
            const SharedAddress address = row >= 0 && row < plan.height ? x_row : zeros;
            // Kernel rows b from first_b to last_b meet a row of the segment.
            const int first_b = step - group_rows + 1, last_b = min(step, tap_rows - 1);
            auto multiply = [&](auto all_rows) {
              // The next product's columns are under way while one is taken, where there are
              // registers for it.
              constexpr int kAhead = kChunks < 5;
              uint32_t a[kAhead + 1][4];
              auto load = [&](int product) {
                const int chunk = product / kTiles + 2 * (product % kTiles);
                if (needed >> product & 1) {
                  ldmatrix_trans(a[product % (kAhead + 1)], address + 16 * chunk);
                }
              };
              if (kAhead) load(0);
#pragma unroll
              for (int product = 0; product < kProducts; ++product) {
                const int t = product / kTiles, j = product % kTiles;
                if (product + kAhead < kProducts) load(product + kAhead);
                if (!(needed >> product & 1)) continue;
#pragma unroll
                for (int b = 0; b < kTapRows; ++b) {
                  if (!decltype(all_rows)::value && (b < first_b || b > last_b)) continue;
                  mma<T>(sums[b][j], a[product % (kAhead + 1)],
                         grad[(u - b + kTapRows) % kTapRows][t]);
                }
              }
            };
            if (first_b <= 0 && last_b == kTapRows - 1) {
              multiply(std::true_type{});
            } else {
              multiply(std::false_type{});
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
      grad_weight[int64_t{channel} * taps + tap] = from_float<T>(sum);
    } else {
      partial[(int64_t{split} * plan.channels + channel) * taps + tap] = sum;
    }
  }
}

template <class T, int kChunks>
cudaError_t launch_backward_weight_as(const BackwardWeightPlan& plan, const T* grad_output,
                                      const T* x, T* grad_weight, float* workspace,
                                      cudaStream_t stream) {
  auto kernel = backward_weight_kernel<T, kChunks, kDefaultTapRows, 1>;
  if constexpr (kChunks <= kMostVariedChunks) {
    const bool seven = plan.tap_rows == kSevenTapRows;
    if (seven) kernel = backward_weight_kernel<T, kChunks, kSevenTapRows, 1>;
    if (plan.stages == 2) {
      kernel = seven ? backward_weight_kernel<T, kChunks, kSevenTapRows, 2>
                     : backward_weight_kernel<T, kChunks, kDefaultTapRows, 2>;
    }
  }
  const int64_t count = plan.grid_size();
  if (count > kMaxBlocks) return cudaErrorInvalidConfiguration;
  const cudaError_t error =
      launch(kernel, dim3(static_cast<unsigned>(count)), dim3(plan.threads()), plan.shared_bytes,
             stream, grad_output, x, grad_weight, workspace, plan);
  if (error != cudaSuccess || plan.splits == 1) return error;
  const int64_t taps = int64_t{plan.channels} * plan.kernel_height * plan.kernel_width;
  return launch_add_partials(workspace, grad_weight, taps, plan.splits, stream);
}

template <class T>
cudaError_t launch_backward_weight(const BackwardWeightPlan& plan, const T* grad_output, const T* x,
                                   T* grad_weight, float* workspace, cudaStream_t stream) {
  switch (chunks_of(plan.kernel_width)) {
    case 2:
      return launch_backward_weight_as<T, 2>(plan, grad_output, x, grad_weight, workspace, stream);
    case 3:
      return launch_backward_weight_as<T, 3>(plan, grad_output, x, grad_weight, workspace, stream);
    case 4:
      return launch_backward_weight_as<T, 4>(plan, grad_output, x, grad_weight, workspace, stream);
    default:
      return launch_backward_weight_as<T, 5>(plan, grad_output, x, grad_weight, workspace, stream);
  }
}

}  // namespace tensor_core

template <class T>
cudaError_t tensor_core_backward_weight(const Shape& shape, const T* grad_output, const T* x,
                                        T* grad_weight, float* workspace, cudaStream_t stream,
                                        Variants variants) {
  using namespace tensor_core;
  BackwardWeightPlan plan = remembered_plan(shape, variants, choose_backward_weight_plan);
  complete_plan(plan, grad_output, x);
  return launch_backward_weight(plan, grad_output, x, grad_weight, workspace, stream);
}

}  // namespace unireplknet::cuda
