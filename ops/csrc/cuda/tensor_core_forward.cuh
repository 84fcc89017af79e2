// Depthwise convolution on the tensor cores as a product with banded Toeplitz matrices, after
// "Candidates" of the project's notes: for one channel and kernel row i, out[m, n] += sum_k X[m, k]
// B[k, n] with B[k, n] = filter[i, k - n - shift].
//
//   m   16 segments (see tensor_core.cuh): image, group of kRows rows, run of 8 kBlocks columns
//   n   8 neighbouring output columns
//   k   the 8 kChunks input columns under them, in steps of 16 (m16n8k16) and, where one chunk is
//   left, of 8 (m16n8k8)
//
// A warp walks over the input rows of its segments. An input row is read once by ldmatrix and used
// for all kRows output rows of the segment it concerns, each with another kernel row; the band
// fragments of the last kRows kernel rows are in registers. A fragment of the band holds pairs of
// neighbouring filter taps, so it is one 32-bit load from the filter's row, which lies in shared
// memory twice: as pairs that start at even and at odd taps, zeros on both sides. Rows and pairs of
// chunks that lie outside of the map for all 16 segments are left out.
#pragma once

#include "tensor_core.cuh"

namespace unireplknet::cuda {

namespace tensor_core {

constexpr int kThreads = 128;
constexpr int kRows = 4;

struct ForwardPlan {
  TileLayout layout;
  int batch_groups, images;        // images of a block
  int row_tiles, tile_rows;        // output rows of a block, a multiple of kRows
  int column_tiles, tile_columns;  // output columns of a block, a multiple of the segment's width
                                   // unless the tile is as wide as the map
  int height, width, kernel_height, kernel_width;
  int64_t batch, channels;
  int vector;        // elements of a copy from global memory
  int store_vector;  // elements of a store
  bool flip;
  int zero_offset, filter_offset, shared_bytes;
};

// Words of 2 taps in one of the two copies of a filter row.
__host__ __device__ constexpr int filter_words(int chunks) { return 4 * chunks + 4; }
// Bytes of zeros that stand in for a row outside of the map.
__host__ __device__ constexpr int zero_bytes(int chunks, int blocks) {
  return 16 * (chunks + blocks);
}
// Chunks come in pairs, one ldmatrix each. Where the margin is an odd number of chunks the first
// pair starts one chunk further to the left, so that the pairs meet the map's border.
__host__ __device__ constexpr int phase_of(int chunks) { return chunks == 3 || chunks == 4; }

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

template <class T, int kChunks, int kBlocks>
__global__ void __launch_bounds__(kThreads, 4)
    forward_kernel(const T* __restrict__ x, const T* __restrict__ weight,
                   const T* __restrict__ bias, T* __restrict__ out, const ForwardPlan plan) {
  constexpr int kPhase = phase_of(kChunks);
  constexpr int kPairs = (kBlocks + kChunks - 2 + kPhase) / 2 + 1;
  constexpr int kWords = filter_words(kChunks);
  UNIREPLKNET_DYNAMIC_SHARED(unsigned char, shared);

  unsigned block = blockIdx.x;
  const int column_tile = block % plan.column_tiles;
  block /= plan.column_tiles;
  const int row_tile = block % plan.row_tiles;
  block /= plan.row_tiles;
  const int64_t channel = block % plan.channels;
  const int64_t image = block / plan.channels * plan.images;

  const int padding = (plan.kernel_height - 1) / 2;
  const int top = row_tile * plan.tile_rows;
  const int left = column_tile * plan.tile_columns;
  const int64_t plane = int64_t{plan.height} * plan.width;
  const int64_t image_elements = plan.channels * plane;
  const int64_t first_plane = image * image_elements + channel * plane;

  TileBounds bounds;
  bounds.images =
      static_cast<int>(plan.batch - image < plan.images ? plan.batch - image : plan.images);
  bounds.first_row = top > padding ? top - padding : 0;
  bounds.first_index = bounds.first_row - (top - padding);
  bounds.rows = min(plan.height, top + plan.tile_rows + padding) - bounds.first_row;
  bounds.first_column = left - plan.layout.margin;
  bounds.width = plan.width;
  copy_tile(plan.vector, x + first_plane, image_elements, plan.layout, bounds, shared);
  cp_async_commit();
  uint32_t* filter = reinterpret_cast<uint32_t*>(shared + plan.filter_offset);
  build_filter<T, kChunks>(weight + channel * plan.kernel_height * plan.kernel_width, plan, filter);
  for (int i = threadIdx.x; i < zero_bytes(kChunks, kBlocks) / 4; i += kThreads) {
    reinterpret_cast<uint32_t*>(shared + plan.zero_offset)[i] = 0;
  }
  cp_async_wait<0>();
  __syncthreads();

  const int lane = threadIdx.x % 32;
  const int tile_height = min(plan.tile_rows, plan.height - top);
  const int tile_width = min(plan.tile_columns, plan.width - left);
  const int groups = (tile_height + kRows - 1) / kRows;
  const int runs = (tile_width + 8 * kBlocks - 1) / (8 * kBlocks);
  const int segments = bounds.images * groups * runs;
  // Lane n of the band's 8 columns starts at tap -n.
  const uint32_t* band_of_lane =
      filter + (lane / 4 % 2 ? 0 : kWords) + lane % 4 + (7 - lane / 4) / 2;
  const SharedAddress zeros = shared_address(shared + plan.zero_offset) + lane / 16 * 16;
  const float bias_value = bias ? to_float(bias[channel]) : 0.f;

  for (int first = 16 * uniform_warp(); first < segments; first += 16 * (kThreads / 32)) {
    // Lane l gives the addresses of segment l % 16. Without a segment all its rows are zeros.
    const int segment = first + lane % 16;
    const int group = segment / bounds.images % groups;
    const int run = segment / bounds.images / groups;
    const int lane_row = segment < segments ? top - padding + kRows * group : -(1 << 24);
    const SharedAddress lane_address =
        shared_address(shared) + segment % bounds.images * plan.layout.image_stride +
        group * plan.layout.group_stride - plan.layout.offset(bounds.first_index) +
        run * 16 * kBlocks + lane / 16 * 16;

    // What at least one of the segments needs.
    const int last = min(first + 15, segments - 1);
    const int first_run = first / bounds.images / groups, last_run = last / bounds.images / groups;
    const int first_group = first_run == last_run ? first / bounds.images % groups : 0;
    const int last_group = first_run == last_run ? last / bounds.images % groups : groups - 1;
    const int begin = max(0, padding - top - kRows * last_group);
    const int end =
        min(plan.kernel_height + kRows - 1, plan.height + padding - top - kRows * first_group);
    uint32_t pairs = 0;
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      const int column = left - plan.layout.margin + 8 * (2 * pair - kPhase);
      if (column + 8 * kBlocks * last_run + 15 >= 0 &&
          column + 8 * kBlocks * first_run < plan.width)
        pairs |= 1u << pair;
    }

    float sums[kRows][kBlocks][4] = {};
    uint32_t band[kRows][kChunks];
    // Step r: input row r of the segment, counted from the first that its first output row needs,
    // meets kernel row r - b for the output row b. Steps come in fours to have the band of kernel
    // row r in the registers r % 4.
    for (int base = max(0, begin - (kRows - 1)) / kRows * kRows; base < end; base += kRows) {
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
            row >= 0 && row < plan.height
                ? lane_address + base / kRows * plan.layout.group_stride + u * plan.layout.pitch
                : zeros;
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

    // Registers 0 and 1 of the sums belong to segment lane / 4, 2 and 3 to the one 8 further.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int target = first + lane / 4 + 8 * half;
      const int target_row = top + target / bounds.images % groups * kRows;
      const int target_column = left + target / bounds.images / groups * (8 * kBlocks);
      T* to = out + first_plane + target % bounds.images * image_elements +
              int64_t{target_row} * plan.width + target_column;
      const int rows = target < segments ? plan.height - target_row : 0;
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
            if (column < columns)
              *reinterpret_cast<uint4*>(row_to) =
                  make_uint4(words[0], words[1], words[2], words[3]);
          } else {
            if (column < columns)
              *reinterpret_cast<uint2*>(row_to) = make_uint2(words[0], words[1]);
            if (column + 4 < columns)
              *reinterpret_cast<uint2*>(row_to + 4) = make_uint2(words[2], words[3]);
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
}

// Cycles that a launch may take, in a crude model: tensor cores, shared memory and device memory
// each busy for their part, the largest rules; blocks come in waves.
inline double forward_cost(const Shape& shape, const ForwardPlan& plan, int blocks) {
  const int chunks = chunks_of(shape.kernel_width);
  const int segments = plan.images * divide_up(std::min(plan.tile_rows, shape.height), kRows) *
                       divide_up(std::min(plan.tile_columns, shape.width), 8 * blocks);
  const int tiles = divide_up(segments, 16);
  // Four warps of a block take one tile each at a time.
  const int rounds = divide_up(tiles, kThreads / 32);
  const double products = double(kRows) * shape.kernel_height * blocks * chunks / 2;
  const double tensor = products / 0.63;
  const double reads = (kRows + shape.kernel_height - 1) * (2. * (blocks + chunks - 1) + chunks);
  const double compute = std::max(tensor, reads) * (tiles + 0.5 * (4 * rounds - tiles));
  const double rows = std::min(plan.tile_rows + shape.kernel_height - 1, shape.height);
  // Bytes that a processor moves in a cycle: 18 of its share of device memory; halos come from the
  // second-level cache.
  const double memory = 2. * plan.images *
                        (rows * plan.layout.columns + double(plan.tile_rows) * plan.tile_columns) /
                        18;
  const int64_t count = plan.batch_groups * shape.channels * plan.row_tiles * plan.column_tiles;
  const int resident =
      std::min<int>(kPlanSharedBytes / (plan.shared_bytes + 1024), blocks == 4 ? 4 : 5);
  const int64_t slots = int64_t{kPlanProcessors} * resident;
  // A wave that is not full still takes the latency of a block; a block alone cannot fill the
  // processor.
  const double busy =
      double(divide_up(count, int64_t{kPlanProcessors})) * std::max(compute, memory);
  const double latency = 3000. * double(divide_up(count, slots)) +
                         8. * (plan.kernel_height + kRows) * blocks * chunks * rounds;
  return busy + latency;
}

inline ForwardPlan plan_forward(const Shape& shape, const void* x, const void* out, bool flip,
                                int* blocks) {
  const int chunks = chunks_of(shape.kernel_width);
  ForwardPlan best{};
  double best_cost = 0;
  for (int candidate = 1; candidate <= 4; candidate *= 2) {
    for (int images = 16; images >= 1; images /= 2) {
      if (images > 1 && images / 2 >= shape.batch) continue;
      for (int row_tiles = 1; row_tiles <= 64; row_tiles *= 2) {
        ForwardPlan plan{};
        plan.images = images;
        plan.batch_groups = static_cast<int>(divide_up(shape.batch, int64_t{images}));
        plan.tile_rows = round_up(divide_up(shape.height, row_tiles), kRows);
        plan.row_tiles = divide_up(shape.height, plan.tile_rows);
        if (row_tiles > 1 &&
            plan.tile_rows == round_up(divide_up(shape.height, row_tiles / 2), kRows))
          break;
        const int rows = std::min(shape.height, plan.tile_rows + shape.kernel_height - 1);
        const int margin = margin_of(shape.kernel_width);
        plan.vector = copy_vector(shape.width, margin, x);
        for (int column_tiles = 1;; column_tiles *= 2) {
          plan.tile_columns = column_tiles == 1
                                  ? round_up(shape.width, 8)
                                  : round_up(divide_up(shape.width, column_tiles), 8 * candidate);
          plan.column_tiles = divide_up(shape.width, plan.tile_columns);
          const int columns = round_up(plan.tile_columns + margin * (column_tiles == 1 ? 1 : 2), 8);
          plan.layout = make_layout(margin, columns, rows, kRows, images, plan.vector);
          plan.zero_offset = images * plan.layout.image_stride;
          plan.filter_offset = plan.zero_offset + zero_bytes(chunks, candidate);
          plan.shared_bytes = plan.filter_offset + shape.kernel_height * 8 * filter_words(chunks);
          // A tile of one segment's width always fits.
          if (plan.shared_bytes <= static_cast<int>(kMaxSharedBytes) ||
              plan.tile_columns == 8 * candidate)
            break;
        }
        if (plan.shared_bytes > static_cast<int>(kMaxSharedBytes)) continue;
        const double cost = forward_cost(shape, plan, candidate);
        if (best.images != 0 && cost >= best_cost) continue;
        best = plan;
        best_cost = cost;
        *blocks = candidate;
      }
    }
  }
  best.height = shape.height;
  best.width = shape.width;
  best.kernel_height = shape.kernel_height;
  best.kernel_width = shape.kernel_width;
  best.batch = shape.batch;
  best.channels = shape.channels;
  best.store_vector = copy_vector(shape.width, 8, out);
  best.flip = flip;
  return best;
}

template <class T, int kChunks>
cudaError_t launch_forward(const ForwardPlan& plan, int blocks, const T* x, const T* weight,
                           const T* bias, T* out, cudaStream_t stream) {
  const int64_t count = plan.batch_groups * plan.channels * plan.row_tiles * plan.column_tiles;
  if (count > 0x7fffffff) return cudaErrorInvalidConfiguration;
  auto kernel = blocks == 1   ? forward_kernel<T, kChunks, 1>
                : blocks == 2 ? forward_kernel<T, kChunks, 2>
                              : forward_kernel<T, kChunks, 4>;
  return launch(kernel, dim3(static_cast<unsigned>(count)), dim3(kThreads), plan.shared_bytes,
                stream, x, weight, bias, out, plan);
}

}  // namespace tensor_core

template <class T>
cudaError_t tensor_core_forward(const Shape& shape, const T* x, const T* weight, const T* bias,
                                bool flip, T* out, cudaStream_t stream) {
  int blocks = 0;
  const tensor_core::ForwardPlan plan = tensor_core::plan_forward(shape, x, out, flip, &blocks);
  switch (chunks_of(shape.kernel_width)) {
    case 2:
      return tensor_core::launch_forward<T, 2>(plan, blocks, x, weight, bias, out, stream);
    case 3:
      return tensor_core::launch_forward<T, 3>(plan, blocks, x, weight, bias, out, stream);
    case 4:
      return tensor_core::launch_forward<T, 4>(plan, blocks, x, weight, bias, out, stream);
    default:
      return tensor_core::launch_forward<T, 5>(plan, blocks, x, weight, bias, out, stream);
  }
}

}  // namespace unireplknet::cuda
