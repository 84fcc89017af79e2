// The convolution of tensor_core_forward.cuh for maps that are laid out channels_last, without a
// copy of the map in another layout. A block takes a tile of kGroupChannels neighbouring channels:
// it reads those of one position as 16 bytes, lays each channel's tile out in shared memory as the
// other kernel does, and every warp computes on one channel after the other. A tile has no more
// than the 16 segments that a warp takes at a time, so that its outputs may take the memory of its
// inputs, from where they go to the map as the inputs came.
#pragma once

#include "tensor_core_forward.cuh"

namespace unireplknet::cuda {

namespace tensor_core {

constexpr int kGroupChannels = 8;

// Of the plans that are visited, `channels` are groups of channels, stage_bytes those of one
// channel.
template <class Visit>
void visit_channels_last_plans(const Shape& shape, Visit visit) {
  const int chunks = chunks_of(shape.kernel_width), margin = margin_of(shape.kernel_width);
  ForwardPlan plan{};
  plan.stages = plan.groups_per_block = 1;
  plan.batch = static_cast<int>(shape.batch);
  plan.channels = static_cast<int>(shape.channels) / kGroupChannels;
  plan.height = shape.height;
  plan.width = shape.width;
  plan.kernel_height = shape.kernel_height;
  plan.kernel_width = shape.kernel_width;
  for (plan.blocks = 1; plan.blocks <= 4; plan.blocks *= 2) {
    if (plan.blocks > 1 && 4 * plan.blocks >= shape.width) break;
    const int most_runs = std::min(16, divide_up(shape.width, 8 * plan.blocks));
    for (int runs = 1; runs / 2 < most_runs; runs *= 2) {
      plan.tile_columns = 8 * plan.blocks * runs;
      plan.column_tiles = divide_up(shape.width, plan.tile_columns);
      const int columns =
          round_up(plan.tile_columns + margin * (plan.column_tiles == 1 ? 1 : 2), 8);
      for (int groups = 1; groups <= 16 / runs; groups *= 2) {
        if (groups > 1 && groups / 2 * kRows >= shape.height) break;
        plan.tile_rows = kRows * groups;
        plan.row_tiles = divide_up(shape.height, plan.tile_rows);
        const int rows = std::min(shape.height, plan.tile_rows + shape.kernel_height - 1);
        for (plan.images = 16 / runs / groups; plan.images >= 1; plan.images /= 2) {
          if (plan.images > 1 && plan.images / 2 >= shape.batch) continue;
          plan.batch_groups = static_cast<int>(divide_up(shape.batch, int64_t{plan.images}));
          plan.layout = make_layout(margin, columns, rows, kRows, plan.images);
          plan.stage_bytes = plan.images * plan.layout.image_stride;
          plan.zero_offset = kGroupChannels * plan.stage_bytes;
          plan.filter_offset = plan.zero_offset + zero_bytes(chunks, plan.blocks);
          plan.shared_bytes =
              plan.filter_offset + kGroupChannels * shape.kernel_height * 8 * filter_words(chunks);
          if (plan.shared_bytes > static_cast<int>(kMaxSharedBytes)) continue;
          if (plan.grid_size() <= kMaxBlocks) visit(plan);
        }
      }
    }
  }
}

inline double channels_last_cycles(const Shape& shape, const ForwardPlan& plan) {
  // A warp has a fourth of the block's channels; the map goes through shared memory element by
  // element, and through the cache in halves of its sectors.
  const int rows = std::min(plan.tile_rows + shape.kernel_height - 1, shape.height);
  const int columns = std::min(plan.layout.columns, shape.width);
  const int out_rows = std::min(plan.tile_rows, shape.height);
  const int out_columns = std::min(plan.tile_columns, shape.width);
  const double steps = std::min(rows, out_rows + shape.kernel_height - 1);
  const Work row = forward_row(shape, plan.blocks, 0);
  const double loaded = double(plan.images) * rows * columns;
  const double stored = double(plan.images) * out_rows * out_columns;
  Work block;
  block.tensor = kGroupChannels * shape.kernel_height * kRows * row.tensor;
  block.shared = kGroupChannels * (steps * row.shared + loaded / 32 + stored / 16);
  block.instructions = kGroupChannels * (shape.kernel_height * kRows * row.instructions +
                                         steps * 16 + 200 + (loaded + stored) / 32 * 2) +
                       (loaded + stored) / 32 * 25 + 600;
  block.steps = kGroupChannels / (kThreads / 32) * steps;
  const double map = 2. * shape.planes() * shape.height * shape.width;
  const int64_t count = plan.grid_size();
  return launch_cycles(count, block, 2 * map, count * 2. * 2 * kGroupChannels * (loaded + stored),
                       kThreads, plan.shared_bytes, plan.blocks == 4 ? 168 : 128);
}

inline ForwardPlan choose_channels_last_plan(const Shape& shape, Variants) {
  ForwardPlan best{};
  double least = 0;
  visit_channels_last_plans(shape, [&](const ForwardPlan& plan) {
    const double cycles = channels_last_cycles(shape, plan);
    if (best.images != 0 && cycles >= least) return;
    best = plan;
    least = cycles;
  });
  return best;
}

// A position's kGroupChannels channels.
union Piece {
  uint4 bytes;
  uint16_t elements[kGroupChannels];
};

template <class T, int kChunks, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks == 4 ? 3 : 4)
    channels_last_kernel(const T* __restrict__ x, const T* __restrict__ weight,
                         const T* __restrict__ bias, T* __restrict__ out, const ForwardPlan plan) {
  UNIREPLKNET_DYNAMIC_SHARED(unsigned char, shared);

  // Neighbouring blocks take neighbouring channels: they share the sectors of memory.
  unsigned block = blockIdx.x;
  const int first_channel = block % plan.channels * kGroupChannels;
  block /= plan.channels;
  const int column_tile = block % plan.column_tiles;
  block /= plan.column_tiles;
  const int row_tile = block % plan.row_tiles;
  const int first_image = block / plan.row_tiles * plan.images;

  const int padding = (plan.kernel_height - 1) / 2;
  const int top = row_tile * plan.tile_rows, left = column_tile * plan.tile_columns;
  const int channels = plan.channels * kGroupChannels;
  const int64_t row_elements = int64_t{plan.width} * channels;
  Segments segments(plan, top, left, 8 * kBlocks);
  segments.set_images(min(plan.images, plan.batch - first_image));

  // What lies outside of the map stays zero.
  for (int i = threadIdx.x; i < plan.filter_offset / 16; i += kThreads) {
    reinterpret_cast<uint4*>(shared)[i] = make_uint4(0, 0, 0, 0);
  }
  uint32_t* filters = reinterpret_cast<uint32_t*>(shared + plan.filter_offset);
  const int filter_size = plan.kernel_height * 2 * filter_words(kChunks);
  const int taps = plan.kernel_height * plan.kernel_width;
  for (int c = 0; c < kGroupChannels; ++c) {
    build_filter<T, kChunks>(weight + int64_t{first_channel + c} * taps, plan,
                             filters + c * filter_size);
  }
  __syncthreads();

  // From row to row of the images, and along a row, in the order of the threads.
  const int first_row = top - padding + segments.first_index;
  const int rows = min(plan.height, top + plan.tile_rows + padding) - first_row;
  const int tile_column = left - plan.layout.margin;  // may be negative
  const int first_column = max(0, tile_column);
  const int columns = min(plan.width, tile_column + plan.layout.columns) - first_column;
  const int offset =
      2 * (first_column - tile_column) - plan.layout.template offset<kRows>(segments.first_index);
  const float per_columns = 1.f / columns, per_rows = 1.f / rows;
  const int loads = segments.images * rows * columns;
  constexpr int kBatch = 4;  // loads under way
  for (int first = threadIdx.x; first < loads; first += kBatch * kThreads) {
    Piece pieces[kBatch];
    unsigned char* targets[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int index = first + i * kThreads;
      const int row_of_all = divide(index, per_columns), column = index - row_of_all * columns;
      const int image = divide(row_of_all, per_rows), row = row_of_all - image * rows;
      targets[i] = shared + image * plan.layout.image_stride +
                   plan.layout.template offset<kRows>(segments.first_index + row) + 2 * column +
                   offset;
      if (index >= loads) continue;
      pieces[i].bytes = *reinterpret_cast<const uint4*>(
          x + (int64_t{first_image + image} * plan.height + first_row + row) * row_elements +
          int64_t{first_column + column} * channels + first_channel);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (first + i * kThreads >= loads) continue;
#pragma unroll
      for (int c = 0; c < kGroupChannels; ++c) {
        *reinterpret_cast<uint16_t*>(targets[i] + c * plan.stage_bytes) = pieces[i].elements[c];
      }
    }
  }
  __syncthreads();

  const int lane = threadIdx.x % 32;
  const SharedAddress zeros = shared_address(shared + plan.zero_offset) + lane / 16 * 16;
  const int tile_height = min(plan.tile_rows, plan.height - top);
  const int tile_width = min(plan.tile_columns, plan.width - left);
  for (int c = uniform_warp(); c < kGroupChannels; c += kThreads / 32) {
    unsigned char* tile = shared + c * plan.stage_bytes;
    const float bias_value = bias ? to_float(bias[first_channel + c]) : 0.f;
    float sums[kRows][kBlocks][4] = {};
    multiply_segments<T, kChunks, kBlocks>(plan, segments, 0, shared_address(tile), zeros,
                                           band_of<kChunks>(filters + c * filter_size), sums);
    __syncwarp();  // the tile has been read
    // Registers 0 and 1 of the sums belong to segment lane / 4, 2 and 3 to the one 8 further.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int target = lane / 4 + 8 * half;
      if (target >= segments.count) continue;
      const int row_of_all = divide(target, segments.per_images);
      const int run = divide(row_of_all, segments.per_groups);
      const int group = row_of_all - run * segments.groups;
      unsigned char* to = tile +
                          (target - row_of_all * segments.images) * plan.layout.image_stride +
                          group * plan.layout.group_stride;
#pragma unroll
      for (int b = 0; b < kRows; ++b) {
        if (group * kRows + b >= tile_height) continue;
#pragma unroll
        for (int t = 0; t < kBlocks; ++t) {
          const int column = 8 * (run * kBlocks + t) + lane % 4 * 2;
          if (column >= tile_width) continue;
          *reinterpret_cast<uint32_t*>(to + b * plan.layout.pitch + 2 * column) =
              pack<T>(sums[b][t][2 * half] + bias_value, sums[b][t][2 * half + 1] + bias_value);
        }
      }
    }
  }
  __syncthreads();

  const float per_width = 1.f / tile_width, per_height = 1.f / tile_height;
  const int stores = segments.images * tile_height * tile_width;
  for (int index = threadIdx.x; index < stores; index += kThreads) {
    const int row_of_all = divide(index, per_width), column = index - row_of_all * tile_width;
    const int image = divide(row_of_all, per_height), row = row_of_all - image * tile_height;
    const unsigned char* from = shared + image * plan.layout.image_stride +
                                plan.layout.template offset<kRows>(row) + 2 * column;
    Piece piece;
#pragma unroll
    for (int c = 0; c < kGroupChannels; ++c) {
      piece.elements[c] = *reinterpret_cast<const uint16_t*>(from + c * plan.stage_bytes);
    }
    *reinterpret_cast<uint4*>(
        out + (int64_t{first_image + image} * plan.height + top + row) * row_elements +
        int64_t{left + column} * channels + first_channel) = piece.bytes;
  }
}

template <class T, int kChunks>
cudaError_t launch_channels_last_as(const ForwardPlan& plan, const T* x, const T* weight,
                                    const T* bias, T* out, cudaStream_t stream) {
  auto kernel = plan.blocks == 1   ? channels_last_kernel<T, kChunks, 1>
                : plan.blocks == 2 ? channels_last_kernel<T, kChunks, 2>
                                   : channels_last_kernel<T, kChunks, 4>;
  return launch(kernel, dim3(static_cast<unsigned>(plan.grid_size())), dim3(kThreads),
                plan.shared_bytes, stream, x, weight, bias, out, plan);
}

template <class T>
cudaError_t launch_channels_last(const ForwardPlan& plan, const T* x, const T* weight,
                                 const T* bias, T* out, cudaStream_t stream) {
  static_assert(kMostVariedChunks == 3, "a case for each number of chunks");
  return chunks_of(plan.kernel_width) == 2
             ? launch_channels_last_as<T, 2>(plan, x, weight, bias, out, stream)
             : launch_channels_last_as<T, 3>(plan, x, weight, bias, out, stream);
}

}  // namespace tensor_core

template <class T>
cudaError_t tensor_core_channels_last(const Shape& shape, const T* x, const T* weight,
                                      const T* bias, bool flip, T* out, cudaStream_t stream) {
  using namespace tensor_core;
  ForwardPlan plan = remembered_plan(shape, {}, choose_channels_last_plan);
  plan.flip = flip;
  return launch_channels_last(plan, x, weight, bias, out, stream);
}

}  // namespace unireplknet::cuda
