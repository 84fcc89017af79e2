// Depthwise convolution on the tensor cores as a product with banded Toeplitz matrices: for one
// channel and kernel row i, out[m, n] += sum_k X[m, k] B[k, n] with B[k, n] = filter[i, k - n -
// shift].
//
//   m: 16 segments (see tensor_core.cuh): image, group of kRows rows, run of 8 kBlocks columns
//
//   n: 8 neighbouring output columns
//
//   k: the 8 kChunks input columns under them, in steps of 16 (m16n8k16) and, where one chunk is
//   left, of 8 (m16n8k8)
//
// A warp walks over the input rows of its segments. An input row is read once by ldmatrix and used
// for all kRows output rows of the segment it concerns, each with another kernel row; the band
// fragments of the last kRows kernel rows are in registers. A fragment of the band holds pairs of
// neighbouring filter taps, so it is one 32-bit load from the filter's row, which lies in shared
// memory twice: as pairs that start at even and at odd taps, zeros on both sides. Rows and pairs of
// chunks that lie outside of the map for all 16 segments are left out.
#pragma once

#include "tensor_core_plan.cuh"

namespace unireplknet::cuda {

namespace tensor_core {

template <class T, int kChunks>
__device__ __forceinline__ void build_filter(const T* __restrict__ weight, const ForwardPlan& plan,
                                             uint32_t* filter) {
  constexpr int kWords = filter_words(kChunks);
  const int shift = plan.layout.margin - (plan.kernel_width - 1) / 2;
  const int taps = plan.kernel_height * plan.kernel_width;
  for (int i = threadIdx.x; i < plan.kernel_height * 2 * kWords; i += kThreads) {
    const int row = i / (2 * kWords), copy = i % (2 * kWords) / kWords;
    const int first = 2 * (i % kWords) + copy - 7 - shift;
    uint32_t bits = 0;
    for (int j = 0; j < 2; ++j) {
      const int column = first + j;
      if (column < 0 || column >= plan.kernel_width) continue;
      const int tap = row * plan.kernel_width + column;
      bits |= bits_of(weight[plan.flip ? taps - 1 - tap : tap]) << 16 * j;
    }
    filter[i] = bits;
  }
}

// Transposes a 4 x 4 matrix of words that the 4 lanes of a quad hold, lane t the column t.
__device__ __forceinline__ void transpose_quad(uint32_t (&words)[4]) {
  const int lane = threadIdx.x % 4;
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      const bool upper = lane & step;
      const uint32_t received =
          __shfl_xor_sync(0xffffffffu, upper ? words[i] : words[i + step], step);
      if (upper) {
        words[i] = received;
      } else {
        words[i + step] = received;
      }
    }
  }
}

// What a block computes on at a time: the segments of its tile, of which the image runs fastest,
// then the group of rows, then the run of columns.
struct Segments {
  int images, groups, runs, count;
  int top, left;    // of the tile's outputs on the map
  int first_index;  // of the first row in shared memory, see TileBounds
  float per_images, per_groups;

  // `columns` of a segment.
  __device__ __forceinline__ Segments(const ForwardPlan& plan, int top_, int left_, int columns)
      : top(top_), left(left_) {
    groups = (min(plan.tile_rows, plan.height - top) + kRows - 1) / kRows;
    runs = (min(plan.tile_columns, plan.width - left) + columns - 1) / columns;
    first_index = max(0, (plan.kernel_height - 1) / 2 - top);
    per_groups = 1.f / groups;
  }
  __device__ __forceinline__ void set_images(int images_) {
    images = images_;
    count = images * groups * runs;
    per_images = 1.f / images;
  }
};

// The sums of the 16 segments from `first` on. `held` is where the channel's tile lies,
// `band_of_lane` the channel's filter and `zeros` a chunk of zeros for each of them, as this lane
// reads them.
template <class T, int kChunks, int kBlocks>
__device__ __forceinline__ void multiply_segments(const ForwardPlan& plan, const Segments& segments,
                                                  int first, SharedAddress held,
                                                  SharedAddress zeros, const uint32_t* band_of_lane,
                                                  float (&sums)[kRows][kBlocks][4]) {
  constexpr int kPhase = phase_of(kChunks);
  constexpr int kPairs = (kBlocks + kChunks - 2 + kPhase) / 2 + 1;
  constexpr int kWords = filter_words(kChunks);
  const int lane = threadIdx.x % 32;
  const int padding = (plan.kernel_height - 1) / 2;
  // Lane l gives the addresses of segment l % 16. Without a segment all its rows are zeros.
  const int segment = first + lane % 16;
  const int row_of_all = divide(segment, segments.per_images);
  const int segment_image = segment - row_of_all * segments.images;
  const int run = divide(row_of_all, segments.per_groups);
  const int group = row_of_all - run * segments.groups;
  const int lane_row =
      segment < segments.count ? segments.top - padding + kRows * group : -(1 << 24);
  SharedAddress group_address = held + segment_image * plan.layout.image_stride +
                                group * plan.layout.group_stride -
                                plan.layout.template offset<kRows>(segments.first_index) +
                                run * 16 * kBlocks + lane / 16 * 16;

  // What at least one of the segments needs.
  const int first_row = divide(first, segments.per_images);
  const int last_row = divide(min(first + 15, segments.count - 1), segments.per_images);
  const int first_run = divide(first_row, segments.per_groups),
            last_run = divide(last_row, segments.per_groups);
  const int first_group = first_run == last_run ? first_row - first_run * segments.groups : 0;
  const int last_group =
      first_run == last_run ? last_row - last_run * segments.groups : segments.groups - 1;
  const int begin = max(0, padding - segments.top - kRows * last_group);
  const int end = min(plan.kernel_height + kRows - 1,
                      plan.height + padding - segments.top - kRows * first_group);
  uint32_t pairs = 0;
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int column = segments.left - plan.layout.margin + 8 * (2 * pair - kPhase);
    if (column + 8 * kBlocks * last_run + 15 >= 0 && column + 8 * kBlocks * first_run < plan.width)
      pairs |= 1u << pair;
  }

  uint32_t band[kRows][kChunks];
  // Step r: input row r of the segment, counted from the first that its first output row needs,
  // meets kernel row r - b for the output row b. Steps come in fours to have the band of kernel
  // row r in the registers r % 4.
  const int first_base = max(0, begin - (kRows - 1)) / kRows * kRows;
  group_address += first_base / kRows * plan.layout.group_stride;
  for (int base = first_base; base < end;
       base += kRows, group_address += plan.layout.group_stride) {
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int step = base + u;
      if (step < plan.kernel_height) {
#pragma unroll
        for (int chunk = 0; chunk < kChunks; ++chunk)
          band[u][chunk] = band_of_lane[step * 2 * kWords + 4 * chunk];
      }
      if (step < begin || step >= end) continue;
      const int row = lane_row + step;
      const SharedAddress address =
          row >= 0 && row < plan.height ? group_address + u * plan.layout.pitch : zeros;
      // The next pair of chunks is under way while the products of one are taken.
      uint32_t a[2][4];
      auto load_pair = [&](int pair) {
        const int chunk = 2 * pair - kPhase;
        if (!(pairs >> pair & 1)) return;
        if (chunk >= 0 && chunk + 1 <= kBlocks + kChunks - 2) {
          ldmatrix(a[pair % 2], address + 16 * chunk);
        } else {
          uint32_t half[2];
          ldmatrix(half, address + 16 * (chunk < 0 ? 0 : chunk));
          a[pair % 2][chunk < 0 ? 2 : 0] = half[0];
          a[pair % 2][chunk < 0 ? 3 : 1] = half[1];
        }
      };
      load_pair(0);
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        if (pair + 1 < kPairs) load_pair(pair + 1);
        if (!(pairs >> pair & 1)) continue;
        const uint32_t (&low_high)[4] = a[pair % 2];
#pragma unroll
        for (int b = 0; b < kRows; ++b) {
          if (step < b || step - b >= plan.kernel_height) continue;
          const uint32_t (&band_row)[kChunks] = band[(u - b + kRows) % kRows];
#pragma unroll
          for (int t = 0; t < kBlocks; ++t) {
            const int chunk = 2 * pair - kPhase - t;
            if (chunk >= 0 && chunk + 1 < kChunks) {
              mma<T>(sums[b][t], low_high, {band_row[chunk], band_row[chunk + 1]});
            } else if (chunk == -1) {
              mma<T>(sums[b][t], {low_high[2], low_high[3]}, {band_row[0]});
            } else if (chunk == kChunks - 1) {
              mma<T>(sums[b][t], {low_high[0], low_high[1]}, {band_row[kChunks - 1]});
            }
          }
        }
      }
    }
  }
}

// Where in a filter's words a lane finds its part of the band: lane n of the band's 8 columns
// starts at tap -n.
template <int kChunks>
__device__ __forceinline__ const uint32_t* band_of(const uint32_t* filter) {
  const int lane = threadIdx.x % 32;
  return filter + (lane / 4 % 2 ? 0 : filter_words(kChunks)) + lane % 4 + (7 - lane / 4) / 2;
}

template <class T, int kChunks, int kBlocks, int kStages>
__global__ void __launch_bounds__(kThreads, kBlocks == 4 ? 3 : 4)
    forward_kernel(const T* __restrict__ x, const T* __restrict__ weight,
                   const T* __restrict__ bias, T* __restrict__ out, const ForwardPlan plan) {
  UNIREPLKNET_DYNAMIC_SHARED(unsigned char, shared);

  unsigned block = blockIdx.x;
  const int column_tile = block % plan.column_tiles;
  block /= plan.column_tiles;
  const int row_tile = block % plan.row_tiles;
  block /= plan.row_tiles;
  const int channel = block % plan.channels;
  const int first_batch_group = block / plan.channels * plan.groups_per_block;

  const int padding = (plan.kernel_height - 1) / 2;
  const int top = row_tile * plan.tile_rows;
  const int left = column_tile * plan.tile_columns;
  const int64_t plane = int64_t{plan.height} * plan.width;
  const int64_t image_elements = plan.channels * plane;

  TileBounds bounds;
  bounds.first_row = top > padding ? top - padding : 0;
  bounds.first_index = bounds.first_row - (top - padding);
  bounds.rows = min(plan.height, top + plan.tile_rows + padding) - bounds.first_row;
  bounds.first_column = left - plan.layout.margin;
  bounds.width = plan.width;
  uint32_t* filter = reinterpret_cast<uint32_t*>(shared + plan.filter_offset);
  const T* weight_of_channel = weight + int64_t{channel} * plan.kernel_height * plan.kernel_width;
  const int lane = threadIdx.x % 32;
  Segments segments(plan, top, left, 8 * kBlocks);
  const uint32_t* band_of_lane = band_of<kChunks>(filter);
  const SharedAddress zeros = shared_address(shared + plan.zero_offset) + lane / 16 * 16;
  const float bias_value = bias ? to_float(bias[channel]) : 0.f;

  auto fetch = [&](int batch_group, unsigned char* target) {
    bounds.images = min(plan.images, plan.batch - batch_group * plan.images);
    copy_tile<kRows>(plan.vector,
                     x + (int64_t{batch_group} * plan.images * image_elements + channel * plane),
                     image_elements, plan.layout, bounds, target);
    cp_async_commit();
  };
  auto build = [&] {  // while the first images are on their way
    build_filter<T, kChunks>(weight_of_channel, plan, filter);
    for (int i = threadIdx.x; i < zero_bytes(kChunks, kBlocks) / 4; i += kThreads) {
      reinterpret_cast<uint32_t*>(shared + plan.zero_offset)[i] = 0;
    }
  };
  auto compute = [&](int batch_group, SharedAddress held) {
    segments.set_images(min(plan.images, plan.batch - batch_group * plan.images));
    const int64_t first_plane =
        int64_t{batch_group} * plan.images * image_elements + channel * plane;
    for (int first = 16 * uniform_warp(); first < segments.count; first += 16 * (kThreads / 32)) {
      float sums[kRows][kBlocks][4] = {};
      multiply_segments<T, kChunks, kBlocks>(plan, segments, first, held, zeros, band_of_lane,
                                             sums);

      // Registers 0 and 1 of the sums belong to segment lane / 4, 2 and 3 to the one 8 further.
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int target = first + lane / 4 + 8 * half;
        const int target_row_of_all = divide(target, segments.per_images);
        const int target_run = divide(target_row_of_all, segments.per_groups);
        const int target_row = top + (target_row_of_all - target_run * segments.groups) * kRows;
        const int target_column = left + target_run * (8 * kBlocks);
        T* to = out + first_plane +
                (target - target_row_of_all * segments.images) * image_elements +
                int64_t{target_row} * plan.width + target_column;
        const int rows = target < segments.count ? plan.height - target_row : 0;
        const int columns = plan.width - target_column;
#pragma unroll
        for (int quad = 0; quad < kRows * kBlocks / 4; ++quad) {
          uint32_t words[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float (&sum)[4] = sums[(4 * quad + i) / kBlocks][(4 * quad + i) % kBlocks];
            words[i] = pack<T>(sum[2 * half] + bias_value, sum[2 * half + 1] + bias_value);
          }
          if (plan.store_vector >= 4) {
            // A quad of lanes holds 4 rows of 8 columns, 2 columns a lane; give each lane a whole
            // one.
            transpose_quad(words);
            const int b = (4 * quad + lane % 4) / kBlocks,
                      column = (4 * quad + lane % 4) % kBlocks * 8;
            if (b >= rows) continue;
            T* row_to = to + b * plan.width + column;
            if (plan.store_vector == 8) {
              if (column < columns) store_global(row_to, words[0], words[1], words[2], words[3]);
            } else {
              if (column < columns) store_global(row_to, words[0], words[1]);
              if (column + 4 < columns) store_global(row_to + 4, words[2], words[3]);
            }
            continue;
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int b = (4 * quad + i) / kBlocks,
                      column = (4 * quad + i) % kBlocks * 8 + lane % 4 * 2;
            if (b >= rows) continue;
            T* row_to = to + b * plan.width + column;
            if (plan.store_vector == 2) {
              if (column < columns) *reinterpret_cast<uint32_t*>(row_to) = words[i];
            } else {
              uint16_t* elements = reinterpret_cast<uint16_t*>(row_to);
              if (column < columns) elements[0] = static_cast<uint16_t>(words[i]);
              if (column + 1 < columns) elements[1] = static_cast<uint16_t>(words[i] >> 16);
            }
          }
        }
      }
    }
  };

  if constexpr (kStages == 1) {
    fetch(first_batch_group, shared);
    build();
    cp_async_wait<0>();
    __syncthreads();
    compute(first_batch_group, shared_address(shared));
  } else {
    // The images of one group are on their way while the block computes on those before; the filter
    // stays where it is.
    const int last_batch_group = min(plan.batch_groups, first_batch_group + plan.groups_per_block);
    for (int next = first_batch_group; next <= last_batch_group; ++next) {
      const int parity = (next - first_batch_group) % 2;
      if (next < last_batch_group) {
        fetch(next, shared + parity * plan.stage_bytes);
      } else {
        cp_async_commit();
      }
      if (next == first_batch_group) {
        build();
        continue;
      }
      cp_async_wait<1>();
      __syncthreads();
      compute(next - 1, shared_address(shared + (1 - parity) * plan.stage_bytes));
      __syncthreads();
    }
  }
}

template <class T, int kChunks>
cudaError_t launch_forward_as(const ForwardPlan& plan, const T* x, const T* weight, const T* bias,
                              T* out, cudaStream_t stream) {
  const int64_t count = plan.grid_size();
  if (count > kMaxBlocks) return cudaErrorInvalidConfiguration;
  auto kernel = plan.blocks == 1   ? forward_kernel<T, kChunks, 1, 1>
                : plan.blocks == 2 ? forward_kernel<T, kChunks, 2, 1>
                                   : forward_kernel<T, kChunks, 4, 1>;
  if constexpr (kChunks <= kMostVariedChunks) {
    if (plan.stages == 2) {
      kernel = plan.blocks == 1   ? forward_kernel<T, kChunks, 1, 2>
               : plan.blocks == 2 ? forward_kernel<T, kChunks, 2, 2>
                                  : forward_kernel<T, kChunks, 4, 2>;
    }
  }
  return launch(kernel, dim3(static_cast<unsigned>(count)), dim3(kThreads), plan.shared_bytes,
                stream, x, weight, bias, out, plan);
}

template <class T>
cudaError_t launch_forward(const ForwardPlan& plan, const T* x, const T* weight, const T* bias,
                           T* out, cudaStream_t stream) {
  switch (chunks_of(plan.kernel_width)) {
    case 2:
      return launch_forward_as<T, 2>(plan, x, weight, bias, out, stream);
    case 3:
      return launch_forward_as<T, 3>(plan, x, weight, bias, out, stream);
    case 4:
      return launch_forward_as<T, 4>(plan, x, weight, bias, out, stream);
    default:
      return launch_forward_as<T, 5>(plan, x, weight, bias, out, stream);
  }
}

}  // namespace tensor_core

template <class T>
cudaError_t tensor_core_forward(const Shape& shape, const T* x, const T* weight, const T* bias,
                                bool flip, T* out, cudaStream_t stream, Variants variants) {
  using namespace tensor_core;
  ForwardPlan plan = remembered_plan(shape, variants, choose_forward_plan);
  complete_plan(plan, x, out, flip);
  return launch_forward(plan, x, weight, bias, out, stream);
}

}  // namespace unireplknet::cuda
