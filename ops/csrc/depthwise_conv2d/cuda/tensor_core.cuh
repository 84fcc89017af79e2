// Depthwise convolution of fp16 and bf16 maps on the tensor cores: what the host function calls,
// and how a block's part of the maps lies in shared memory, which the forward kernel
// (tensor_core_forward.cuh) and the gradient of the filter (tensor_core_backward_weight.cuh) have
// in common. The gradient of the input is the forward kernel with the filter turned.
//
// Both kernels work on segments: a segment is a few rows of 8 kBlocks columns, anywhere in the
// block's tile (image, row, column). A warp takes 16 segments in lockstep, one for each row of the
// 16-row operand of mma.m16n8k16, so that the 16 may come from 16 images (large batches: all of
// them meet the map's border at the same time and the work beyond it is left out) or from one
// (small batches). Columns are handled in chunks of 8, that is 16 bytes, the unit of ldmatrix.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ptx.cuh"
#include "shape.cuh"

namespace unireplknet::cuda {

constexpr int kTensorCoreMaxKernel = 31;

// Kernel sizes up to 31 on each axis; the direct kernels take the rest.
inline bool tensor_core_supported(const Shape& shape) {
  return shape.dilation == 1 && shape.kernel_height <= kTensorCoreMaxKernel &&
         shape.kernel_width <= kTensorCoreMaxKernel;
}

// Which of the variants a call takes depends on its shape alone, and they add in other orders.

// out = conv(x, weight) + bias, accumulated in fp32 and rounded once. `flip` turns the filter by
// 180 degrees: the gradient of the input for x = grad_output. `bias` may be null. T is __half or
// __nv_bfloat16. A value that is not finite reaches, beyond the outputs whose window holds it,
// outputs of its row up to 11 columns further away, because the products with the zeros beside the
// band are computed.
template <class T>
cudaError_t tensor_core_forward(const Shape& shape, const T* x, const T* weight, const T* bias,
                                bool flip, T* out, cudaStream_t stream, Variants variants = {});

// The same for x and out that lie dense in channels_last, where tensor_core_channels_last_supported
// says that their shape and addresses allow it.
bool tensor_core_channels_last_supported(const Shape& shape, const void* x, const void* out);
template <class T>
cudaError_t tensor_core_channels_last(const Shape& shape, const T* x, const T* weight,
                                      const T* bias, bool flip, T* out, cudaStream_t stream);

// Bytes of fp32 partial sums that tensor_core_backward_weight needs.
size_t tensor_core_backward_weight_workspace(const Shape& shape, Variants variants = {});

// grad_weight (channels, kernel_height, kernel_width), summed in fp32 in an order that depends on
// the shape alone.
template <class T>
cudaError_t tensor_core_backward_weight(const Shape& shape, const T* grad_output, const T* x,
                                        T* grad_weight, float* workspace, cudaStream_t stream,
                                        Variants variants = {});

// --- shared by the two kernels ---

__host__ __device__ constexpr int divide_up(int value, int divisor) {
  return (value + divisor - 1) / divisor;
}
constexpr int64_t divide_up(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}
__host__ __device__ constexpr int round_up(int value, int multiple) {
  return divide_up(value, multiple) * multiple;
}

// Columns kept before the first output column of a tile: the kernel's padding, rounded up so that
// copies stay aligned.
constexpr int margin_of(int kernel_width) {
  return std::max(4, round_up((kernel_width - 1) / 2, 4));
}

// Chunks of 8 input columns that 8 neighbouring outputs need when the first chunk starts `margin`
// columns to their left: 2 for kernel widths to 9, 3 to 17, 4 to 25, 5 to 31.
constexpr int chunks_of(int kernel_width) { return margin_of(kernel_width) / 4 + 1; }

// The rows of one map that a block holds in shared memory, for each of its images. A row starts
// with `margin` columns to the left of the tile; where the tile is as wide as the map, the zeros to
// the right of a row are the margin of the next one. Rows come in groups, one row of a segment
// after the other; the strides of groups and of images are such that the 8 rows that one ldmatrix
// reads at a time lie in different banks.
struct TileLayout {
  int margin;        // columns
  int columns;       // columns of a row, the margins included
  int pitch;         // bytes from row to row
  int group_rows;    // rows of a group
  int group_stride;  // bytes from group to group
  int image_stride;  // bytes from image to image

  // Of a row, the first row of the first group being 0. kGroupRows is group_rows where it is known
  // when compiling, and else 0.
  template <int kGroupRows>
  __host__ __device__ int offset(int row) const {
    const int rows = kGroupRows ? kGroupRows : group_rows;
    return row / rows * group_stride + row % rows * pitch;
  }
};

// `rows` is the greatest number of rows kept of an image, `images` the number of images.
inline TileLayout make_layout(int margin, int columns, int rows, int group_rows, int images) {
  TileLayout layout{};
  layout.margin = margin;
  layout.columns = columns;
  layout.pitch = 2 * columns;
  layout.group_rows = group_rows;
  // With the 16-byte units of neighbouring images 1 apart and of neighbouring groups `images`
  // apart, modulo the 8 units of a pass over all banks, segment i lies at unit i: image by image,
  // group by group.
  auto congruent = [](int bytes, int unit) {
    return bytes + 16 * (((unit - bytes / 16) % 8 + 8) % 8);
  };
  layout.group_stride = group_rows * layout.pitch;
  if (images % 8 != 0) layout.group_stride = congruent(layout.group_stride, images);
  // Rows need not start at the beginning of a group, so that one group more may be touched; and a
  // margin follows the last row.
  const int gaps =
      (divide_up(rows, group_rows) + 1) * (layout.group_stride - group_rows * layout.pitch);
  layout.image_stride = congruent(rows * layout.pitch + gaps + 2 * round_up(margin, 8), 1);
  return layout;
}

// Elements that one copy from global memory may move: rows that start at multiples of it, and
// margins and widths that are.
inline int copy_vector(int width, int margin, const void* pointer) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  int vector = 8;
  while (vector > 1 && (width % vector != 0 || margin % vector != 0 || address % (2 * vector) != 0))
    vector /= 2;
  return vector;
}

// Which rows and columns of a map a tile holds. Row `first_row` of the map is the tile's row
// `first_index`, and lies at the beginning of the image's part of shared memory; `first_column` may
// be negative.
struct TileBounds {
  int images, first_row, first_index, rows, first_column, width;
};

// Bytes of zeros that stand in for the chunks of a row outside of the map.
__host__ __device__ constexpr int zero_bytes(int chunks, int blocks) {
  return 16 * (chunks + blocks);
}

// a / b for 0 <= a < 2^20 and inverse = 1.f / b: a few instructions instead of some twenty.
__device__ __forceinline__ int divide(int a, float inverse) {
  return static_cast<int>((static_cast<float>(a) + 0.5f) * inverse);
}

// Writes zeros to what of a tile lies outside of the map: columns before `first` and from `last`
// on, and where a read beyond the end of a row may go and no margin follows, behind the last row
// and behind the last row of each group where there are gaps between groups.
template <int kVector, int kGroupRows>
__device__ __forceinline__ void clear_margins(const TileLayout& layout, const TileBounds& bounds,
                                              int first, int last, unsigned char* target) {
  struct alignas(2 * kVector) Piece {
    uint16_t elements[kVector];
  };
  const int base = layout.template offset<kGroupRows>(bounds.first_index);
  const int gap = layout.group_stride - layout.group_rows * layout.pitch;
  const float per_rows = 1.f / bounds.rows;
#pragma unroll 1
  for (int i = threadIdx.x; i < bounds.rows * bounds.images; i += blockDim.x) {
    const int image = divide(i, per_rows), row = i - image * bounds.rows;
    const int index = bounds.first_index + row;
    Piece* to = reinterpret_cast<Piece*>(target + image * layout.image_stride - base +
                                         layout.template offset<kGroupRows>(index));
    int end = layout.columns;
    if (row + 1 == bounds.rows) {
      end += round_up(layout.margin, 8);
    } else if (gap != 0 && (index + 1) % layout.group_rows == 0) {
      end += gap / 2;
    }
#pragma unroll 1
    for (int piece = 0; piece < first / kVector; ++piece) to[piece] = Piece{};
#pragma unroll 1
    for (int piece = last / kVector; piece < end / kVector; ++piece) to[piece] = Piece{};
  }
}

// Starts the copy of a tile, columns outside of the map as zeros; the caller commits, waits and
// synchronises. So many neighbouring threads as a row has pieces, rounded up to a power of two,
// copy a row. kGaps: there are gaps between groups.
template <class T, int kVector, int kGroupRows, bool kGaps>
__device__ __forceinline__ void copy_tile_by(const T* __restrict__ source, int64_t image_elements,
                                             const TileLayout& layout, const TileBounds& bounds,
                                             unsigned char* target) {
  const int first = max(0, -bounds.first_column);
  const int last = min(layout.columns, bounds.width - bounds.first_column);
  clear_margins<kVector, kGroupRows>(layout, bounds, first, last, target);
  int lanes_log = 0;
  while (lanes_log < 5 && kVector << lanes_log < last - first) ++lanes_log;
  const int step = static_cast<int>(blockDim.x) >> lanes_log;
  const int base = layout.template offset<kGroupRows>(bounds.first_index);
  // From a row to the thread's next one, and from behind the last row to the next image.
  const int64_t step_elements = int64_t{step} * bounds.width;
  const int64_t next_elements = image_elements - int64_t{bounds.rows} * bounds.width;
  const int step_bytes = kGaps ? 0 : step * layout.pitch;
  const int next_bytes = layout.image_stride - (kGaps ? 0 : bounds.rows * layout.pitch);
  const int lane = threadIdx.x & ((1 << lanes_log) - 1);
  for (int column = first + lane * kVector; column < last; column += kVector << lanes_log) {
    int row = threadIdx.x >> lanes_log, images = bounds.images;
    const T* from =
        source + int64_t{bounds.first_row + row} * bounds.width + (bounds.first_column + column);
    unsigned char* to = target + 2 * column + (kGaps ? 0 : row * layout.pitch);
    // Loads to registers go several at a time.
    constexpr int kBatch = kVector == 1 ? 4 : 1;
    for (bool more = true; more;) {
      uint16_t elements[kBatch];
      unsigned char* targets[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        while (row >= bounds.rows) {
          row -= bounds.rows;
          from += next_elements;
          to += next_bytes;
          --images;
        }
        more = images > 0;
        targets[i] = to;
        if constexpr (kGaps) {
          targets[i] += layout.template offset<kGroupRows>(bounds.first_index + row) - base;
        }
        if constexpr (kVector > 1) {
          if (more) cp_async<2 * kVector>(shared_address(targets[i]), from);
        } else {
          if (more) elements[i] = static_cast<uint16_t>(bits_of(*from));
          if (!more) targets[i] = nullptr;
        }
        row += step;
        from += step_elements;
        to += step_bytes;
      }
      if constexpr (kVector == 1) {
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          if (targets[i]) *reinterpret_cast<uint16_t*>(targets[i]) = elements[i];
        }
      }
    }
  }
}

template <int kGroupRows, int kVector, class T>
__device__ __forceinline__ void copy_tile_by(const T* __restrict__ source, int64_t image_elements,
                                             const TileLayout& layout, const TileBounds& bounds,
                                             unsigned char* target) {
  if (layout.group_stride == layout.group_rows * layout.pitch) {
    copy_tile_by<T, kVector, kGroupRows, false>(source, image_elements, layout, bounds, target);
  } else {
    copy_tile_by<T, kVector, kGroupRows, true>(source, image_elements, layout, bounds, target);
  }
}

template <int kGroupRows, class T>
__device__ __forceinline__ void copy_tile(int vector, const T* __restrict__ source,
                                          int64_t image_elements, const TileLayout& layout,
                                          const TileBounds& bounds, unsigned char* target) {
  if (vector == 8) {
    copy_tile_by<kGroupRows, 8>(source, image_elements, layout, bounds, target);
  } else if (vector == 4) {
    copy_tile_by<kGroupRows, 4>(source, image_elements, layout, bounds, target);
  } else if (vector == 2) {
    copy_tile_by<kGroupRows, 2>(source, image_elements, layout, bounds, target);
  } else {
    copy_tile_by<kGroupRows, 1>(source, image_elements, layout, bounds, target);
  }
}

// The warp's index in a way that lets the compiler see that all lanes have the same.
__device__ __forceinline__ int uniform_warp() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x / 32), 0);
}

}  // namespace unireplknet::cuda
