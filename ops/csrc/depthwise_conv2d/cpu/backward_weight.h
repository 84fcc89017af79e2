// The gradient by the filter:
//   grad_weight[c, i, j] = sum over n, h, w of
//       grad_output[n, c, h, w] * x[n, c, h + (i - ph) * dilation, w + (j - pw) * dilation].
//
// Channels lie in lanes (pack.h), so there is no sum across a vector. A tile of kernel rows and
// columns is held in registers as sums and swept over a block of the two maps. Along a row of x a
// window of as many x vectors as the tile has columns moves by one vector a step; with the
// grad_output vectors of the rows that the tile's kernel rows pair with this row of x, one a
// kernel row, it feeds rows * columns multiply-adds from rows + 1 loads:
//
//     x row y            ... [u] [u+1] [u+2] [u+3] ...        window, in registers
//     grad_output row    y - o     [w]  x  window  ->  sum[0][0] sum[0][1] sum[0][2] sum[0][3]
//     grad_output row    y - o - d [w]  x  window  ->  sum[1][0] sum[1][1] sum[1][2] sum[1][3]
//
// The window stays where it is and the names of its registers rotate, which is why a step is
// unrolled as often as the tile has columns. With a dilation d the columns w, w + d, w + 2 d, ...
// are a row of their own, one after another for each remainder. With AVX-512-BF16 a packed vector
// holds the columns w and w + d, and a step moves by two.
//
// Kernel rows and columns that never meet the map are left out, and so are all products with rows
// outside it. A tile leaves out the columns in which none of its kernel columns meets the map;
// what remains outside are zero columns beside the packed x (where an infinite grad_output or x
// gives NaN). Three or five kernel columns of channels-last maps are too little work for packing:
// the maps are read where they are.
//
// The maps are cut into blocks (an image, a range of rows and, in wide maps, of columns), the
// blocks of some channels into chunks, which are the tasks. Registers are added to a chunk's sums
// after every sweep over a block, and the chunks' sums are added in order. Blocks and chunks follow
// from the shape alone, so the result does not depend on the number of threads.
#pragma once

#include <type_traits>

#include "../../cpu/pack.h"
#include "kernels.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// How packed vectors are multiplied, and how rows of a map become packed vectors:
//   pack(source, strides, channels, rows, left, right, limit, dilation, packed)
// packs the columns [left, right) of rows that begin at source, of which [0, limit) exist and the
// others are zeros; 0 <= limit, left < limit, right > 0, and packed rows follow one another.

// A packed vector with one column.
template <class V>
struct SingleColumn {
  using Sum = V;
  static constexpr int kPacked = 1;
  V v;

  static UNIREPLKNET_INLINE SingleColumn load(const typename V::Scalar* p) {
    return {V::load_unaligned(p)};
  }
  UNIREPLKNET_INLINE void multiply_into(Sum& sum, SingleColumn other) const {
    sum.multiply_add(v, other.v);
  }

  template <class T>
  static void pack(const T* source, Strides strides, int channels, int64_t rows, int64_t left,
                   int64_t right, int64_t limit, int64_t, typename V::Scalar* packed) {
    constexpr int L = V::kLanes;
    const int64_t pitch = right - left;
    const int64_t first = maximum(0, left), last = minimum(limit, right), columns = last - first;
    if (columns < pitch)
      for (int64_t r = 0; r < rows; ++r) {
        fill_zero<V>(packed + r * pitch * L, first - left);
        fill_zero<V>(packed + (r * pitch + last - left) * L, right - last);
      }
    UNIREPLKNET_ISA::pack<V>(source + first * strides.w, strides, channels, rows, columns, nullptr,
                             packed + (first - left) * L, pitch);
  }
};

#if UNIREPLKNET_BFLOAT16_PAIRS
// A packed vector with two bfloat16 columns in each lane, w in the low half and w + dilation.
struct ColumnPair {
  using Sum = Float;
  static constexpr int kPacked = 2;
  __m512bh v;

  static UNIREPLKNET_INLINE ColumnPair load(const float* p) {
    return {reinterpret_cast<__m512bh>(_mm512_load_ps(p))};
  }
  UNIREPLKNET_INLINE void multiply_into(Sum& sum, ColumnPair other) const {
    sum.v = _mm512_dpbf16_ps(sum.v, v, other.v);
  }

  static void pack(const BFloat16* source, Strides strides, int channels, int64_t rows,
                   int64_t left, int64_t right, int64_t limit, int64_t dilation, float* packed) {
    constexpr int L = Float::kLanes;
    const int64_t first = maximum(left, -dilation), last = minimum(right, limit);
    for (int64_t r = 0; r < rows; ++r, source += strides.h) {
      fill_zero<Float>(packed, first - left);
      packed += (first - left) * L;
      if (strides.w == 1)
        pack_contiguous_columns(source, strides.c, channels, first, last, limit, dilation, packed);
      else if (strides.c == 1)
        pack_contiguous_channels(source, strides.w, channels, first, last, limit, dilation, packed);
      else
        pack_any(source, strides, channels, first, last, limit, dilation, packed);
      packed += (last - first) * L;
      fill_zero<Float>(packed, right - last);
      packed += (right - last) * L;
    }
  }

 private:
  // One permutation of the 32 columns from w on gives 16 pairs, as a dilation is at most 15.
  static void pack_contiguous_columns(const BFloat16* row, int64_t channel_stride, int channels,
                                      int64_t first, int64_t last, int64_t limit, int64_t dilation,
                                      float* packed) {
    constexpr int L = Float::kLanes;
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i later = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(dilation)));
    const __m512i index = _mm512_or_si512(lane, _mm512_slli_epi32(later, 16));
    for (int64_t w = first; w < last; w += L, packed += L * L) {
      const uint32_t missing_left = static_cast<uint32_t>(maximum(0, -w));
      const uint32_t missing_right = static_cast<uint32_t>(maximum(0, w + 32 - limit));
      const __mmask32 exists = (~uint32_t{0} << missing_left) & (~uint32_t{0} >> missing_right);
      Float tile[L];
#pragma GCC unroll 16
      for (int l = 0; l < L; ++l) {
        const __m512i columns = l < channels
                                    ? _mm512_maskz_loadu_epi16(exists, row + l * channel_stride + w)
                                    : _mm512_setzero_si512();
        tile[l].v = _mm512_castsi512_ps(_mm512_permutexvar_epi16(index, columns));
      }
      Float::transpose(tile);
      const int count = static_cast<int>(minimum(L, last - w));
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i)
        if (i < count) tile[i].store(packed + i * L);
    }
  }

  static void pack_contiguous_channels(const BFloat16* row, int64_t column_stride, int channels,
                                       int64_t first, int64_t last, int64_t limit, int64_t dilation,
                                       float* packed) {
    const __mmask16 exists = static_cast<__mmask16>((1u << channels) - 1);
    const auto column = [&](int64_t w) {
      return w < 0 || w >= limit
                 ? _mm512_setzero_si512()
                 : _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(exists, row + w * column_stride));
    };
    for (int64_t w = first; w < last; ++w, packed += Float::kLanes)
      _mm512_store_si512(packed,
                         _mm512_or_si512(column(w), _mm512_slli_epi32(column(w + dilation), 16)));
  }

  static void pack_any(const BFloat16* row, Strides strides, int channels, int64_t first,
                       int64_t last, int64_t limit, int64_t dilation, float* packed) {
    const auto bits = [&](int64_t w, int l) {
      return l >= channels || w < 0 || w >= limit
                 ? uint32_t{0}
                 : uint32_t{row[l * strides.c + w * strides.w].bits};
    };
    for (int64_t w = first; w < last; ++w)
      for (int l = 0; l < Float::kLanes; ++l)
        *packed++ = bit_cast<float>(bits(w, l) | bits(w + dilation, l) << 16);
  }
};
#endif

constexpr int greatest_common_divisor(int a, int b) {
  return b == 0 ? a : greatest_common_divisor(b, a % b);
}

// The size of one of `parts` nearly equal parts of total.
constexpr int64_t part_size(int64_t total, int64_t parts, int64_t part) {
  return total / parts + (part < total % parts);
}

// One tile over neighbouring rows of x that all its kernel rows pair with a row of grad_output.
template <class Scalar>
struct Sweep {
  const Scalar* grad_output;  // at the first row of x, kernel row and output column
  const Scalar* x;            // at the first row and the input column of the first kernel column
  Scalar* sums;               // of the first kernel row and column
  int64_t rows, columns;      // rows of x; output columns
  int64_t dilation;
  int64_t grad_output_row, x_row;        // scalars from a row to the next
  int64_t grad_output_column, x_column;  // scalars from a column to the next
  int64_t kernel_row_sums;  // scalars from the sums of a kernel row to those of the next
};

template <class Operand, int kRows, int kColumns>
void sweep_tile(const Sweep<typename Operand::Sum::Scalar>& s) {
  using Sum = typename Operand::Sum;
  using Scalar = typename Sum::Scalar;
  constexpr int L = Sum::kLanes;
  constexpr int kPacked = Operand::kPacked;
  constexpr int kKept = kColumns > kPacked ? kColumns - kPacked : 0;  // of the window, a step
  constexpr int kUnroll = kColumns / greatest_common_divisor(kColumns, kPacked);

  Sum sum[kRows][kColumns];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int t = 0; t < kColumns; ++t) sum[r][t] = Sum::zero();

  const int64_t g_column = s.dilation * s.grad_output_column;
  const int64_t x_column = s.dilation * s.x_column;
  const int64_t kernel_row = s.dilation * s.grad_output_row;
  const int64_t phases = minimum(s.dilation, s.columns);
  for (int64_t row = 0; row < s.rows; ++row)
    for (int64_t phase = 0; phase < phases; ++phase) {
      const Scalar* g = s.grad_output + row * s.grad_output_row + phase * s.grad_output_column;
      const Scalar* x = s.x + row * s.x_row + phase * s.x_column;
      Operand window[kColumns];
#pragma GCC unroll 16
      for (int t = 0; t < kKept; ++t) window[t] = Operand::load(x + t * x_column);
      x += kKept * x_column;
      for (int64_t steps = ceil_div(s.columns - phase, s.dilation * kPacked); steps > 0;) {
#pragma GCC unroll 16
        for (int step = 0; step < kUnroll; ++step) {
#pragma GCC unroll 2
          for (int t = kKept; t < kColumns; ++t)
            window[(step * kPacked + t) % kColumns] = Operand::load(x + (t - kKept) * x_column);
          x += kPacked * x_column;
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) {
            const Operand gradient = Operand::load(g - r * kernel_row);
#pragma GCC unroll 16
            for (int t = 0; t < kColumns; ++t)
              gradient.multiply_into(sum[r][t], window[(step * kPacked + t) % kColumns]);
          }
          g += kPacked * g_column;
          if (--steps == 0) break;
        }
      }
    }

  const Sum one = Sum::broadcast(1);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int t = 0; t < kColumns; ++t) {
      Scalar* p = s.sums + r * s.kernel_row_sums + t * L;
      Sum total = Sum::load(p);
      total.multiply_add(sum[r][t], one);
      total.store(p);
    }
}

template <class Operand, class T>
class BackwardWeight {
 public:
  static void run(const Problem& problem, const ConstMap& grad_output, const ConstMap& x,
                  void* grad_weight, ParallelFor parallel_for) {
    BackwardWeight plan(problem, grad_output, x, grad_weight);
    if (plan.chunks_ == 1) {
      parallel_for(plan.channel_blocks_, whole_task, &plan);
      return;
    }
    const int64_t tasks = plan.channel_blocks_ * plan.chunks_;
    const Buffer<Scalar> sums(tasks * plan.sums_size_);
    plan.sums_ = sums.get();
    parallel_for(tasks, chunk_task, &plan);
    parallel_for(plan.channel_blocks_, finish_task, &plan);
  }

 private:
  using Sum = typename Operand::Sum;
  using Scalar = typename Sum::Scalar;
  static constexpr int L = Sum::kLanes;

  // A tile takes its sums, the window and one vector of grad_output from the registers.
  static constexpr int kMostColumns = Isa::kRegisters == 32 ? 7 : 5;
  static constexpr int kMostRows = 6;
  static constexpr int most_rows(int columns) {
    return static_cast<int>(minimum(kMostRows, (Isa::kRegisters - 1 - columns) / columns));
  }

  // Vectors of one block's maps: half of a common second-level cache.
  static constexpr int64_t kBlockVectors = (512 << 10) / (L * sizeof(Scalar));
  static constexpr int64_t kBlockColumns = 512;
  static constexpr int64_t kTasks = 32;
  // Multiply-adds of vectors that are worth a task, about 10 microseconds.
  static constexpr int64_t kTaskWork = 1 << 16;

  BackwardWeight(const Problem& problem, const ConstMap& grad_output, const ConstMap& x,
                 void* grad_weight)
      : problem_(problem),
        grad_output_(grad_output),
        x_(x),
        grad_weight_(static_cast<T*>(grad_weight)) {
    const Problem& p = problem;
    taps_above_ = minimum(p.kernel_height / 2, (p.height - 1) / p.dilation);
    taps_left_ = minimum(p.kernel_width / 2, (p.width - 1) / p.dilation);
    kernel_rows_ = 2 * taps_above_ + 1;
    kernel_columns_ = 2 * taps_left_ + 1;
    sums_size_ = p.kernel_height * p.kernel_width * L;
    channel_blocks_ = ceil_div(p.channels, L);

    column_blocks_ = ceil_div(p.width, kBlockColumns);
    block_columns_ = ceil_div(p.width, column_blocks_);
    column_blocks_ = ceil_div(p.width, block_columns_);
    // The rows of x above and below a block's rows, which each block packs again.
    const int64_t halo = 2 * taps_above_ * p.dilation * x_columns();
    const int64_t cached_rows = (kBlockVectors - halo) / (block_columns_ + x_columns());
    // Packing a vector takes about 8 multiply-adds; packing the halo, half of the products at most.
    const int64_t worthwhile_rows =
        maximum(4, ceil_div(16 * halo, block_columns_ * kernel_rows_ * kernel_columns_));
    const int64_t work = p.batch * p.height * p.width * kernel_rows_ * kernel_columns_;
    const int64_t wanted = maximum(1, minimum(ceil_div(kTasks, channel_blocks_), work / kTaskWork));
    const int64_t rows_of_chunk = ceil_div(p.batch * column_blocks_ * p.height, wanted);
    const int64_t rows = maximum(worthwhile_rows, minimum(cached_rows, rows_of_chunk));
    row_blocks_ = ceil_div(p.height, rows);
    block_rows_ = ceil_div(p.height, row_blocks_);
    row_blocks_ = ceil_div(p.height, block_rows_);
    blocks_ = p.batch * row_blocks_ * column_blocks_;
    chunks_ = minimum(wanted, blocks_);
  }

  // Zero columns that a tile can meet on one side of x.
  int64_t padding() const { return (kMostColumns - 1) * problem_.dilation; }

  // The most packed columns of x for one block.
  int64_t x_columns() const {
    return minimum(block_columns_ + 2 * taps_left_ * problem_.dilation,
                   problem_.width + 2 * padding());
  }

  static void whole_task(int64_t task, void* context) {
    const BackwardWeight& plan = *static_cast<const BackwardWeight*>(context);
    Scratch scratch(plan.scratch_bytes() +
                    Scratch::rounded(plan.sums_size_ * static_cast<int64_t>(sizeof(Scalar))));
    Scalar* sums = scratch.take<Scalar>(plan.sums_size_);
    plan.add_blocks(task, 0, plan.blocks_, sums, scratch);
    plan.write(task, sums);
  }

  static void chunk_task(int64_t task, void* context) {
    const BackwardWeight& plan = *static_cast<const BackwardWeight*>(context);
    const int64_t chunk = task % plan.chunks_;
    Scratch scratch(plan.scratch_bytes());
    plan.add_blocks(task / plan.chunks_, plan.blocks_ * chunk / plan.chunks_,
                    plan.blocks_ * (chunk + 1) / plan.chunks_, plan.sums_ + task * plan.sums_size_,
                    scratch);
  }

  static void finish_task(int64_t task, void* context) {
    const BackwardWeight& plan = *static_cast<const BackwardWeight*>(context);
    Scalar* total = plan.sums_ + task * plan.chunks_ * plan.sums_size_;
    const Sum one = Sum::broadcast(1);
    for (int64_t chunk = 1; chunk < plan.chunks_; ++chunk)
      for (int64_t i = 0; i < plan.sums_size_; i += L) {
        Sum sum = Sum::load(total + i);
        sum.multiply_add(Sum::load(total + chunk * plan.sums_size_ + i), one);
        sum.store(total + i);
      }
    plan.write(task, total);
  }

  void write(int64_t channel_block, const Scalar* sums) const {
    const int64_t first = channel_block * L;
    const int64_t taps = problem_.kernel_height * problem_.kernel_width;
    unpack<Sum>(sums, taps, nullptr, lanes(channel_block), 1, taps, grad_weight_ + first * taps,
                Strides{0, taps, taps, 1});
  }

  int lanes(int64_t channel_block) const {
    return static_cast<int>(minimum(L, problem_.channels - channel_block * L));
  }

  int64_t scratch_bytes() const {
    const int64_t d = problem_.dilation;
    const int64_t x_rows = minimum(problem_.height, block_rows_ + 2 * taps_above_ * d);
    return Scratch::rounded((block_rows_ * block_columns_ + x_rows * x_columns()) * L *
                            static_cast<int64_t>(sizeof(Scalar)));
  }

  // sums = over blocks [begin, end) of one channel block.
  void add_blocks(int64_t channel_block, int64_t begin, int64_t end, Scalar* sums,
                  Scratch& scratch) const {
    fill_zero<Sum>(sums, sums_size_ / L);
    Scalar* packed = scratch.take<Scalar>(scratch_bytes() / static_cast<int64_t>(sizeof(Scalar)));
    for (int64_t block = begin; block < end; ++block) add_block(channel_block, block, sums, packed);
  }

  // A rectangle of one image, rows [top, bottom) and columns [left, right), packed or in its map.
  struct Block {
    int64_t top, bottom, left, right;
    const Scalar* data;
    int64_t row, column;  // scalars from one to the next
    int64_t rows() const { return bottom - top; }
    int64_t columns() const { return right - left; }
    const Scalar* at(int64_t h, int64_t w) const {
      return data + (h - top) * row + (w - left) * column;
    }
  };

  const T* first(const ConstMap& map, int64_t n, int64_t channel_block, const Block& b) const {
    return static_cast<const T*>(map.data) + n * map.strides.n + channel_block * L * map.strides.c +
           b.top * map.strides.h;
  }

  // Packs a block of image n, of which all rows and the columns [0, limit) exist.
  void pack_block(const ConstMap& map, int64_t n, int64_t channel_block, int64_t limit, Block& b,
                  Scalar* packed) const {
    b.data = packed;
    b.row = b.columns() * L;
    b.column = L;
    Operand::pack(first(map, n, channel_block, b), map.strides, lanes(channel_block), b.rows(),
                  b.left, b.right, limit, problem_.dilation, packed);
  }

  void read_in_place(const ConstMap& map, int64_t n, int64_t channel_block, Block& b) const {
    if constexpr (std::is_same_v<T, Scalar>)
      b.data = first(map, n, channel_block, b) + b.left * map.strides.w;
    b.row = map.strides.h;
    b.column = map.strides.w;
  }

  // With few kernel columns a channels-last map is not worth packing: near the map's sides, where
  // some kernel columns lie outside, tiles of the others take the place of zero columns. Their work
  // grows with the square of the kernel's columns.
  bool in_place(int64_t channel_block) const {
    const int64_t others = kernel_columns_ - 1;
    return std::is_same_v<T, Scalar> && (others == 2 || others == 4) &&
           problem_.width >= others * others * problem_.dilation && lanes(channel_block) == L &&
           grad_output_.strides.c == 1 && x_.strides.c == 1;
  }

  void add_block(int64_t channel_block, int64_t index, Scalar* sums, Scalar* packed) const {
    const Problem& p = problem_;
    const int64_t d = p.dilation;
    const int64_t n = index / (row_blocks_ * column_blocks_);
    Block g{};
    g.top = index / column_blocks_ % row_blocks_ * block_rows_;
    g.bottom = minimum(p.height, g.top + block_rows_);
    g.left = index % column_blocks_ * block_columns_;
    g.right = minimum(p.width, g.left + block_columns_);
    Block x{};
    x.top = maximum(0, g.top - taps_above_ * d);
    x.bottom = minimum(p.height, g.bottom + taps_above_ * d);
    x.left = maximum(g.left - taps_left_ * d, -padding());
    x.right = minimum(g.right + taps_left_ * d, p.width + padding());
    // Kernel rows and columns are counted from the centre here: i, j = -2, -1, 0, 1, 2.
    if (in_place(channel_block)) {
      x.left = maximum(0, x.left);
      read_in_place(grad_output_, n, channel_block, g);
      read_in_place(x_, n, channel_block, x);
      const auto add = [&](int64_t left, int64_t right, int64_t j, int64_t columns) {
        add_tiles(g, x, maximum(g.left, left), minimum(g.right, right), j,
                  static_cast<int>(columns), sums);
      };
      for (int64_t side = 0; side < taps_left_; ++side) {
        const int64_t columns = taps_left_ + 1 + side;
        add(side * d, (side + 1) * d, -side, columns);
        add(p.width - (side + 1) * d, p.width - side * d, -taps_left_, columns);
      }
      add(taps_left_ * d, p.width - taps_left_ * d, -taps_left_, kernel_columns_);
      return;
    }
    pack_block(grad_output_, n, channel_block, g.right, g, packed);
    pack_block(x_, n, channel_block, p.width, x, packed + g.rows() * g.row);
    const int64_t column_tiles = ceil_div(kernel_columns_, kMostColumns);
    int64_t j = -taps_left_;
    for (int64_t column_tile = 0; column_tile < column_tiles; ++column_tile) {
      const int columns = static_cast<int>(part_size(kernel_columns_, column_tiles, column_tile));
      const int64_t left = maximum(g.left, -(j + columns - 1) * d);
      const int64_t right = minimum(g.right, p.width - j * d);
      add_tiles(g, x, left, right, j, columns, sums);
      j += columns;
    }
  }

  // All kernel rows of the kernel columns [j, j + columns) over the output columns [left, right) of
  // a block.
  void add_tiles(const Block& g, const Block& x, int64_t left, int64_t right, int64_t j,
                 int columns, Scalar* sums) const {
    if (left >= right) return;
    const int64_t row_tiles = ceil_div(kernel_rows_, most_rows(columns));
    int64_t i = -taps_above_;
    for (int64_t row_tile = 0; row_tile < row_tiles; ++row_tile) {
      const int rows = static_cast<int>(part_size(kernel_rows_, row_tiles, row_tile));
      add_tile(g, x, left, right, i, rows, j, columns, sums);
      i += rows;
    }
  }

  // The tile of kernel rows [i, i + rows) and columns [j, j + columns) over the output columns
  // [left, right) of a block.
  void add_tile(const Block& g, const Block& x, int64_t left, int64_t right, int64_t i, int rows,
                int64_t j, int columns, Scalar* sums) const {
    const Problem& p = problem_;
    const int64_t d = p.dilation;
    Sweep<Scalar> s;
    s.columns = right - left;
    s.dilation = d;
    s.grad_output_row = g.row;
    s.x_row = x.row;
    s.grad_output_column = g.column;
    s.x_column = x.column;
    s.kernel_row_sums = p.kernel_width * L;

    // Row y of x meets kernel row i + r in output row y - (i + r) * d, which must lie in the block:
    // first <= r < last. Neighbouring rows with the same range are swept together.
    const int64_t end = minimum(x.bottom, g.bottom + (i + rows - 1) * d);
    int64_t first = 0, last = 0;
    for (int64_t y = maximum(x.top, g.top + i * d), next; y < end; y = next) {
      const int64_t h = y - i * d;
      while (h - first * d >= g.bottom) ++first;
      while (last < rows && h - last * d >= g.top) ++last;
      next = minimum(end, (i + first) * d + g.bottom);
      if (last < rows) next = minimum(next, (i + last) * d + g.top);
      if (first < last) {
        s.rows = next - y;
        s.grad_output = g.at(h - first * d, left);
        s.x = x.at(y, left + j * d);
        s.sums = sums +
                 ((i + first + p.kernel_height / 2) * p.kernel_width + j + p.kernel_width / 2) * L;
        sweep(static_cast<int>(last - first), columns, s);
      }
    }
  }

  static void sweep(int rows, int columns, const Sweep<Scalar>& s) {
    switch (columns) {
      case 1:
        return sweep_rows<1>(rows, s);
      case 2:
        return sweep_rows<2>(rows, s);
      case 3:
        return sweep_rows<3>(rows, s);
      case 4:
        return sweep_rows<4>(rows, s);
      case 5:
        return sweep_rows<5>(rows, s);
      case 6:
        return sweep_rows<6>(rows, s);
      case 7:
        return sweep_rows<7>(rows, s);
    }
  }

  template <int kColumns>
  static void sweep_rows(int rows, const Sweep<Scalar>& s) {
    switch (rows) {
      case 1:
        return sweep_if_fits<1, kColumns>(s);
      case 2:
        return sweep_if_fits<2, kColumns>(s);
      case 3:
        return sweep_if_fits<3, kColumns>(s);
      case 4:
        return sweep_if_fits<4, kColumns>(s);
      case 5:
        return sweep_if_fits<5, kColumns>(s);
      case 6:
        return sweep_if_fits<6, kColumns>(s);
    }
  }

  template <int kRows, int kColumns>
  static void sweep_if_fits(const Sweep<Scalar>& s) {
    if constexpr (kColumns <= kMostColumns && kRows <= most_rows(kColumns))
      sweep_tile<Operand, kRows, kColumns>(s);
  }

  const Problem problem_;
  const ConstMap grad_output_, x_;
  T* const grad_weight_;
  Scalar* sums_ = nullptr;                // [channel block][chunk][kernel row][kernel column][lane]
  int64_t taps_above_, taps_left_;        // on either side of the centre, that meet the map
  int64_t kernel_rows_, kernel_columns_;  // that meet the map
  int64_t sums_size_;                     // scalars of one chunk
  int64_t channel_blocks_, row_blocks_, column_blocks_, block_rows_, block_columns_;
  int64_t blocks_, chunks_;  // of one channel block
};

template <class Isa>
void backward_weight(const Problem& problem, const ConstMap& grad_output, const ConstMap& x,
                     void* grad_weight, ParallelFor parallel_for) {
  using Single = SingleColumn<typename Isa::Float>;
  switch (problem.dtype) {
    case DType::kFloat32:
      return BackwardWeight<Single, float>::run(problem, grad_output, x, grad_weight, parallel_for);
    case DType::kFloat64:
      return BackwardWeight<SingleColumn<typename Isa::Double>, double>::run(
          problem, grad_output, x, grad_weight, parallel_for);
    case DType::kFloat16:
      return BackwardWeight<Single, Half>::run(problem, grad_output, x, grad_weight, parallel_for);
    case DType::kBFloat16:
#if UNIREPLKNET_BFLOAT16_PAIRS
      return BackwardWeight<ColumnPair, BFloat16>::run(problem, grad_output, x, grad_weight,
                                                       parallel_for);
#else
      return BackwardWeight<Single, BFloat16>::run(problem, grad_output, x, grad_weight,
                                                   parallel_for);
#endif
  }
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
