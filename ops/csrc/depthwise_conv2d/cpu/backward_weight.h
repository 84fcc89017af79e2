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
#include "tap_sums.h"

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

  template <class Element>
  static UNIREPLKNET_INLINE SingleColumn load(const Element* p) {
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
  static constexpr bool kReadsInPlace = std::is_same_v<T, Scalar> || Isa::kLoads<T>;
  static constexpr int L = Sum::kLanes;

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
        grad_weight_(static_cast<T*>(grad_weight)),
        taps_(problem.kernel_height, problem.kernel_width, problem.dilation, problem.height,
              problem.width),
        taps_in_place_(problem.kernel_height, problem.kernel_width, problem.dilation,
                       problem.height, problem.width) {
    const Problem& p = problem;
    sums_size_ = p.kernel_height * p.kernel_width * L;
    channel_blocks_ = ceil_div(p.channels, L);

    column_blocks_ = ceil_div(p.width, kBlockColumns);
    block_columns_ = ceil_div(p.width, column_blocks_);
    column_blocks_ = ceil_div(p.width, block_columns_);
    // The rows of x above and below a block's rows, which each block packs again.
    const int64_t halo = 2 * taps_.taps_above * p.dilation * x_columns();
    const int64_t cached_rows = (kBlockVectors - halo) / (block_columns_ + x_columns());
    // Packing a vector takes about 8 multiply-adds; packing the halo, half of the products at most.
    const int64_t worthwhile_rows =
        maximum(4, ceil_div(16 * halo, block_columns_ * taps_.kernel_rows * taps_.kernel_columns));
    const int64_t work = p.batch * p.height * p.width * taps_.kernel_rows * taps_.kernel_columns;
    const int64_t wanted = maximum(1, minimum(ceil_div(kTasks, channel_blocks_), work / kTaskWork));
    const int64_t rows_of_chunk = ceil_div(p.batch * column_blocks_ * p.height, wanted);
    const int64_t rows = maximum(worthwhile_rows, minimum(cached_rows, rows_of_chunk));
    row_blocks_ = ceil_div(p.height, rows);
    block_rows_ = ceil_div(p.height, row_blocks_);
    row_blocks_ = ceil_div(p.height, block_rows_);
    blocks_ = p.batch * row_blocks_ * column_blocks_;
    chunks_ = minimum(wanted, blocks_);
  }

  // The most packed columns of x for one block.
  int64_t x_columns() const {
    return minimum(block_columns_ + 2 * taps_.taps_left * problem_.dilation,
                   problem_.width + 2 * taps_.padding());
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
    const int64_t x_rows = minimum(problem_.height, block_rows_ + 2 * taps_.taps_above * d);
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

  const T* first(const ConstMap& map, int64_t n, int64_t channel_block, int64_t row) const {
    return static_cast<const T*>(map.data) + n * map.strides.n + channel_block * L * map.strides.c +
           row * map.strides.h;
  }

  // Packs a block of image n, of which all rows and the columns [0, limit) exist.
  void pack_block(const ConstMap& map, int64_t n, int64_t channel_block, int64_t limit,
                  Block<Scalar>& b, Scalar* packed) const {
    b.data = packed;
    b.row = b.columns() * L;
    b.column = L;
    Operand::pack(first(map, n, channel_block, b.top), map.strides, lanes(channel_block), b.rows(),
                  b.left, b.right, limit, problem_.dilation, packed);
  }

  void read_in_place(const ConstMap& map, int64_t n, int64_t channel_block, Block<T>& b) const {
    b.data = first(map, n, channel_block, b.top) + b.left * map.strides.w;
    b.row = map.strides.h;
    b.column = map.strides.w;
  }

  // With few kernel columns a channels-last map is not worth packing: near the map's sides, where
  // some kernel columns lie outside, tiles of the others take the place of zero columns. Their work
  // grows with the square of the kernel's columns.
  bool in_place(int64_t channel_block) const {
    const int64_t others = taps_.kernel_columns - 1;
    return kReadsInPlace && (others == 2 || others == 4) &&
           problem_.width >= others * others * problem_.dilation && lanes(channel_block) == L &&
           grad_output_.strides.c == 1 && x_.strides.c == 1;
  }

  void add_block(int64_t channel_block, int64_t index, Scalar* sums, Scalar* packed) const {
    const Problem& p = problem_;
    const int64_t d = p.dilation;
    const int64_t n = index / (row_blocks_ * column_blocks_);
    const int64_t top = index / column_blocks_ % row_blocks_ * block_rows_;
    const int64_t left = index % column_blocks_ * block_columns_;
    const int64_t bottom = minimum(p.height, top + block_rows_);
    const int64_t right = minimum(p.width, left + block_columns_);
    const int64_t x_top = maximum(0, top - taps_.taps_above * d);
    const int64_t x_bottom = minimum(p.height, bottom + taps_.taps_above * d);
    const int64_t x_left = left - taps_.taps_left * d, x_right = right + taps_.taps_left * d;
    // Kernel rows and columns are counted from the centre here: i, j = -2, -1, 0, 1, 2.
    if (in_place(channel_block)) {
      Block<T> g{top, bottom, left, right};
      Block<T> x{x_top, x_bottom, maximum(0, x_left), minimum(x_right, p.width)};
      read_in_place(grad_output_, n, channel_block, g);
      read_in_place(x_, n, channel_block, x);
      const auto add = [&](int64_t from, int64_t to, int64_t j, int64_t columns) {
        taps_in_place_.add_tiles(g, x, maximum(left, from), minimum(right, to), j,
                                 static_cast<int>(columns), sums);
      };
      for (int64_t side = 0; side < taps_.taps_left; ++side) {
        const int64_t columns = taps_.taps_left + 1 + side;
        add(side * d, (side + 1) * d, -side, columns);
        add(p.width - (side + 1) * d, p.width - side * d, -taps_.taps_left, columns);
      }
      add(taps_.taps_left * d, p.width - taps_.taps_left * d, -taps_.taps_left,
          taps_.kernel_columns);
      return;
    }
    Block<Scalar> g{top, bottom, left, right};
    Block<Scalar> x{x_top, x_bottom, maximum(x_left, -taps_.padding()),
                    minimum(x_right, p.width + taps_.padding())};
    pack_block(grad_output_, n, channel_block, right, g, packed);
    pack_block(x_, n, channel_block, p.width, x, packed + g.rows() * g.row);
    taps_.add(g, x, p.width, sums);
  }

  const Problem problem_;
  const ConstMap grad_output_, x_;
  T* const grad_weight_;
  const TapSums<Operand> taps_;
  const TapSums<SingleColumn<Sum>, T> taps_in_place_;
  Scalar* sums_ = nullptr;  // [channel block][chunk][kernel row][kernel column][lane]
  int64_t sums_size_;       // scalars of one chunk
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
