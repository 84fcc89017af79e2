// The convolution, and with the filter turned its gradient by the input.
//
// Lanes are channels. A task packs the rows of x that it needs as [row][column][lane] (pack.h) and
// computes tiles of R rows x T columns of the output in R*T vector registers:
//
//   for each input row that a tile sees:                    rows outside the map do not exist
//     for each kernel column i:
//       load R weights, one for each output row: those of R kernel rows
//       for each column t of the tile: load x[t + i], R multiply-adds
//
// R*T multiply-adds need R+T loads (3x7: 0.48 loads each). No multiply-add is spent on padding: the
// first and last R-1 input rows are unrolled for the output rows that they reach, and so are the
// kernel columns for which some columns of the tile look outside the map (the "triangles"). Hence
// no padding is stored, a plane packs as one run of height*width columns, and a filter larger than
// 2*size-1 is cropped to that.
//
// Dilation d: a 'same' convolution of dilation d is d*d dense convolutions, one for each residue of
// (row, column) modulo d. Packing brings the columns of one residue together, and the tiles never
// see the dilation.
//
// Small filters on channels_last maps of float32 are not worth packing: class Unpacked runs the
// same tiles on the map itself.
//
// bfloat16 with AVX-512-BF16: an element is the pair (x[w], x[w+1]), a step is two kernel columns
// and vdpbf16ps the multiply-add (struct Pairs). A filter has an odd number of columns, so that one
// of its pairs is half empty. Zero times what x has there is zero, unless that is infinite or NaN:
// then, and for weights that are, the convolution is done again by the AVX-512 kernels.
//
// The split into tasks, strips and tiles depends on the shape only.
#pragma once

#include <utility>

#include "kernels.h"
#include "pack.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// How an accumulator takes operands: kStep kernel columns at a time. kLead and kTrail more vectors
// are stored before and behind each packed row.
template <class V>
struct Single {
  using Vector = V;
  static constexpr int kStep = 1, kLead = 0, kTrail = 0;
  static UNIREPLKNET_INLINE void multiply_add(V& sum, V x, V w) { sum.multiply_add(x, w); }
};

#if UNIREPLKNET_BFLOAT16_PAIRS
// Vector p of a row holds the columns p and p + 1, in the lower and the upper half of the lanes.
// The vectors -1 and width - 1 are half zero; one zero vector more at each end lets a step begin at
// any parity.
struct Pairs {
  using Vector = Float;
  static constexpr int kStep = 2, kLead = 2, kTrail = 1;
  static UNIREPLKNET_INLINE void multiply_add(Float& sum, Float x, Float w) {
    sum.v =
        _mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(x.v), reinterpret_cast<__m512bh>(w.v));
  }

  // count floats that hold bfloat16 values, to pairs (0, 1), (2, 3), ... or, with step 1, (0, 1),
  // (1, 2), ...; what is missing behind the last is zero. Returns whether all values are finite.
  static bool join(const float* singles, int64_t count, int step, float* pairs) {
    __mmask16 infinite = 0;
    for (int64_t i = 0; i < count; i += step) {
      const __m512 low = _mm512_load_ps(singles + i * Float::kLanes);
      const __m512 high =
          i + 1 < count ? _mm512_load_ps(singles + (i + 1) * Float::kLanes) : _mm512_setzero_ps();
      constexpr int kInfiniteOrNan = 0x01 | 0x08 | 0x10 | 0x80;
      infinite |= _mm512_fpclass_ps_mask(low, kInfiniteOrNan);
      if (step == 2) infinite |= _mm512_fpclass_ps_mask(high, kInfiniteOrNan);
      const __m512i shifted = _mm512_srli_epi32(_mm512_castps_si512(low), 16);
      _mm512_store_si512(pairs, _mm512_or_si512(shifted, _mm512_castps_si512(high)));
      pairs += Float::kLanes;
    }
    return infinite == 0;
  }
  static bool join_row(const float* singles, int64_t width, float* pairs) {
    fill_zero<Float>(pairs, 1);
    Float::load(singles).store(pairs + Float::kLanes);
    fill_zero<Float>(pairs + (width + 2) * Float::kLanes, 1);
    return join(singles, width, 1, pairs + 2 * Float::kLanes);
  }
};
#endif

template <int N>
struct Constant {
  static constexpr int value = N;
};

template <class F, int... I>
UNIREPLKNET_INLINE void unroll_over(std::integer_sequence<int, I...>, F&& f) {
  (f(Constant<I>{}), ...);
}

// f(Constant<0>), ..., f(Constant<N - 1>).
template <int N, class F>
UNIREPLKNET_INLINE void unroll(F&& f) {
  unroll_over(std::make_integer_sequence<int, N>{}, f);
}

// One dense convolution. Rows and columns count from the first ones stored; a map that continues
// beyond them is stored as far as the outputs look.
template <class S>
struct Plane {
  const S* x;             // the first vector of row 0
  int64_t x_row;          // scalars from row to row ...
  int64_t x_column;       // ... and from column to column: kLanes, unless kStrided
  int64_t rows, columns;  // stored; columns with lead and trail
  const S* weight;        // [kernel_height][steps][lane]
  int64_t kernel_height, kernel_width, steps;
  const S* bias;  // one vector
  int64_t out_row, out_column;
};

// kStrided: x_column is what the plane says, the vectors of x need not be aligned, and the filter
// has at most kStridedKernel rows and columns. Its tiles are short of memory rather than of
// arithmetic.
constexpr int kStridedKernel = 5;

template <class Math, int R, int T, bool kStrided>
struct Tile {
  using V = typename Math::Vector;
  using S = typename V::Scalar;
  static constexpr int L = V::kLanes;
  static constexpr int kStep = Math::kStep;
  // In step m of a triangle, m * kStep of the T columns lie outside; m = 1 .. kTriangle.
  static constexpr int kTriangle =
      static_cast<int>(minimum((T - 1) / kStep, kStrided ? kStridedKernel / 2 : (T - 1) / kStep));

  // The steps over the kernel columns: those with columns before the map, all inside, behind it.
  struct Columns {
    int left, right;  // number of steps; their m falls from here to 1 (right ones go backwards)
    int64_t full;
    int64_t left_step, full_step, right_step;  // where each begins, in the filter ...
    int64_t left_x, full_x, right_x;           // ... and in the row
  };

  // first: the column, perhaps outside, that column 0 of the tile meets in step 0.
  static Columns divide(int64_t first, const Plane<S>& p) {
    Columns c{};
    int64_t step = 0;
    if (first < -kTriangle * kStep) step = ceil_div(-first - kTriangle * kStep, kStep);
    const int64_t before = -(first + step * kStep);
    if (before > 0) {
      c.left = static_cast<int>(ceil_div(before, kStep));
      c.left_step = step;
      c.left_x = c.left * kStep - before;
      step += c.left;
    }
    c.full_step = step;
    c.full_x = first + step * kStep;
    c.full = minimum(p.steps - step, (p.columns - T - c.full_x) / kStep + 1);
    step += c.full;
    c.right = static_cast<int>(minimum(p.steps - step, kTriangle));
    c.right_step = step + c.right - 1;
    c.right_x = first + c.right_step * kStep;
    return c;
  }

  // Columns [T0, T1) of the output rows [R0, R1): column T0 meets x, output row 0 the filter row w.
  template <int R0, int R1, int T0, int T1>
  static UNIREPLKNET_INLINE void step(V (&sum)[R][T], const S* x, int64_t x_column, const S* w,
                                      int64_t w_row) {
    V weight[R];
#pragma GCC unroll 8
    for (int r = R0; r < R1; ++r) weight[r] = V::load(w - r * w_row);
#pragma GCC unroll 8
    for (int t = 0; t < T1 - T0; ++t) {
      V value;
      if constexpr (kStrided) {
        // Four columns have cheap addresses from one base.
        value = V::load_unaligned(x + (t / 4) * (4 * x_column) + (t % 4) * x_column);
      } else {
        value = V::load(x + t * L);
      }
#pragma GCC unroll 8
      for (int r = R0; r < R1; ++r) Math::multiply_add(sum[r][T0 + t], value, weight[r]);
    }
  }

  template <int R0, int R1>
  static UNIREPLKNET_INLINE void row(V (&sum)[R][T], const S* x, int64_t x_column, const S* w,
                                     int64_t w_row, const Columns& c) {
    if (c.left > 0) {
      const S* from = x + c.left_x * x_column;
      const S* tap = w + c.left_step * L;
      unroll<kTriangle>([&](auto i) __attribute__((always_inline)) {
        constexpr int m = kTriangle - decltype(i)::value;
        if (c.left >= m) {
          step<R0, R1, m * kStep, T>(sum, from, x_column, tap, w_row);
          tap += L;
        }
      });
    }
    {
      const S* from = x + c.full_x * x_column;
      const S* tap = w + c.full_step * L;
      for (int64_t i = c.full; i > 0; --i) {
        step<R0, R1, 0, T>(sum, from, x_column, tap, w_row);
        from += kStep * x_column;
        tap += L;
      }
    }
    if (c.right > 0) {
      const S* from = x + c.right_x * x_column;
      const S* tap = w + c.right_step * L;
      unroll<kTriangle>([&](auto i) __attribute__((always_inline)) {
        constexpr int m = kTriangle - decltype(i)::value;
        if (c.right >= m) {
          step<R0, R1, 0, T - m * kStep>(sum, from, x_column, tap, w_row);
          from -= kStep * x_column;
          tap -= L;
        }
      });
    }
  }

  // Output rows [row0, row0 + R) and columns [column0, column0 + T) into out, which points to the
  // first of them. Needs R <= kernel_height and T <= the width of the map.
  static void run(const Plane<S>& p, int64_t row0, int64_t column0, S* out) {
    V sum[R][T];
    const V bias = V::load(p.bias);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) sum[r][t] = bias;

    const Columns columns = divide(column0 - p.kernel_width / 2 + Math::kLead, p);
    const int64_t x_column = kStrided ? p.x_column : L;
    const int64_t w_row = p.steps * L;
    const int64_t above = p.kernel_height / 2;
    int64_t y = maximum(0, row0 - above);
    const int64_t y_end = minimum(p.rows, row0 + R + above);
    int64_t k = y - row0 + above;  // the filter row with which input row y reaches output row row0
    const S* x = p.x + y * p.x_row;
    if constexpr (kStrided) {
      // What the tile below this one will need. Past the end of the map a prefetch does nothing.
      const auto x_ahead = reinterpret_cast<uintptr_t>(p.x) +
                           ((row0 + R + above) * p.x_row + column0 * x_column) * sizeof(S);
      const auto out_ahead = reinterpret_cast<uintptr_t>(out) + R * p.out_row * sizeof(S);
      for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) {
          prefetch<false, 2>(x_ahead + (r * p.x_row + t * x_column) * sizeof(S));
          prefetch<true, 2>(out_ahead + (r * p.out_row + t * p.out_column) * sizeof(S));
        }
    }
    const S* w = p.weight + k * w_row;
    const auto next = [&]() __attribute__((always_inline)) {
      ++y;
      ++k;
      x += p.x_row;
      w += w_row;
    };
    unroll<R - 1>([&](auto i) __attribute__((always_inline)) {
      constexpr int last = decltype(i)::value;
      if (k == last && y < y_end) {
        row<0, last + 1>(sum, x, x_column, w, w_row, columns);
        next();
      }
    });
    while (k < p.kernel_height && y < y_end) {
      row<0, R>(sum, x, x_column, w, w_row, columns);
      next();
    }
    unroll<R - 1>([&](auto i) __attribute__((always_inline)) {
      constexpr int first = decltype(i)::value + 1;
      if (y < y_end) {
        row<first, R>(sum, x, x_column, w, w_row, columns);
        next();
      }
    });

#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) sum[r][t].store_unaligned(out + r * p.out_row + t * p.out_column);
  }
};

// The tiles that are compiled: of 1 to kMaxRows rows and 1 to kMaxColumns columns.
template <class Math, bool kStrided>
struct Tiles {
  using S = typename Math::Vector::Scalar;
  using Run = void (*)(const Plane<S>&, int64_t, int64_t, S*);
  static constexpr int kMaxRows = 3;
  static constexpr int kMaxColumns = Isa::kRegisters == 32 && sizeof(S) == 4 ? 8 : 4;

  static Run find(int64_t rows, int64_t columns) {
    static constexpr Table table = make(std::make_integer_sequence<int, kMaxRows * kMaxColumns>{});
    return table.run[(rows - 1) * kMaxColumns + columns - 1];
  }

  // Output rows [row0, row1) and columns [column0, column0 + width), of which there are at most
  // kMaxRows and kernel_height rows, any number of columns.
  static void run(const Plane<S>& plane, int64_t row0, int64_t row1, int64_t column0, int64_t width,
                  S* out) {
    const int64_t tiles = ceil_div(width, kMaxColumns);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t begin = width * i / tiles, end = width * (i + 1) / tiles;
      find(row1 - row0, end - begin)(plane, row0, column0 + begin, out + begin * plane.out_column);
    }
  }

 private:
  struct Table {
    Run run[kMaxRows * kMaxColumns];
  };
  template <int... I>
  static constexpr Table make(std::integer_sequence<int, I...>) {
    return {{Tile<Math, I / kMaxColumns + 1, I % kMaxColumns + 1, kStrided>::run...}};
  }
};

// The part of a filter that maps of a size can see: at most 2 * size - 1 of its rows and columns.
template <class Math, class T>
class Filter {
  using V = typename Math::Vector;
  using S = typename V::Scalar;
  static constexpr int64_t L = V::kLanes;

 public:
  Filter(const Problem& p, const void* weight, const void* bias, bool flip)
      : height(minimum(p.kernel_height, 2 * ceil_div(p.height, p.dilation) - 1)),
        width(minimum(p.kernel_width, 2 * ceil_div(p.width, p.dilation) - 1)),
        steps(ceil_div(width, Math::kStep)),
        weight_(static_cast<const T*>(weight)),
        bias_(static_cast<const T*>(bias)),
        flip_(flip),
        whole_height_(p.kernel_height),
        whole_width_(p.kernel_width),
        reversed_(flip ? height * width : 0) {
    const int64_t taps = height * width;
    for (int64_t i = 0; flip && i < taps; ++i)
      reversed_.get()[i] = static_cast<int32_t>(taps - 1 - i);
  }

  // Scalars that a packed filter with its bias takes.
  int64_t size() const { return (height * steps + 1) * L; }
  // Where the bias begins in it.
  int64_t bias_offset() const { return height * steps * L; }

  // [height][steps][lane] for the channels [channel, channel + channels), then the bias. Returns
  // whether they are finite, if Math cares.
  bool pack_channels(int64_t channel, int channels, S* to) const {
    if constexpr (Math::kStep == 1) {
      pack_taps(channel, channels, to);
    } else {
      Buffer<S> singles(height * width * L);
      pack_taps(channel, channels, singles.get());
      bool finite = true;
      for (int64_t i = 0; i < height; ++i)
        finite &= Math::join(singles.get() + i * width * L, width, Math::kStep, to + i * steps * L);
      if (!finite) return false;
    }
    (bias_ ? V::load_partial(bias_ + channel, channels) : V::zero()).store(to + bias_offset());
    return true;
  }

  const int64_t height, width, steps;

 private:
  void pack_taps(int64_t channel, int channels, S* to) const {
    const int64_t whole = whole_height_ * whole_width_, taps = height * width;
    const T* from = weight_ + channel * whole + (whole_height_ - height) / 2 * whole_width_ +
                    (whole_width_ - width) / 2;
    const Strides strides{0, whole, whole_width_, 1};
    if (!flip_) {
      pack<V>(from, strides, channels, height, width, nullptr, to, width);
    } else if (width == whole_width_) {  // the rows follow one another
      pack<V>(from, strides, channels, 1, taps, reversed_.get(), to, taps);
    } else {  // reversed_ ends with the order of one row
      pack<V>(from, strides, channels, height, width, reversed_.get() + taps - width,
              to + (height - 1) * width * L, -width);
    }
  }

  const T* const weight_;
  const T* const bias_;
  const bool flip_;
  const int64_t whole_height_, whole_width_;
  const Buffer<int32_t> reversed_;
};

// Rows of the strips into which `rows` are cut for at least kTasks tasks in all, but such that a
// strip is worth starting a task (row_work multiply-adds of vectors each) and is no smaller than
// least nor, if that is more than one tile, larger than most.
inline int64_t strip_rows(int64_t rows, int64_t tasks, int64_t row_work, int64_t least,
                          int64_t most, int64_t tile_rows) {
  constexpr int64_t kTasks = 32, kTaskWork = 60000;
  const int64_t wanted = ceil_div(rows, ceil_div(kTasks, tasks));
  const int64_t worth = maximum(least, ceil_div(kTaskWork, row_work));
  const int64_t strip = maximum(tile_rows, minimum(most, maximum(wanted, worth)));
  const int64_t even = ceil_div(rows, ceil_div(rows, strip));
  return minimum(rows, ceil_div(even, tile_rows) * tile_rows);
}

template <class Math, class T>
class Packed {
  using V = typename Math::Vector;
  using S = typename V::Scalar;
  using Block = Tiles<Math, false>;
  static constexpr int64_t L = V::kLanes;

 public:
  // Returns false if Math cannot do it: some value is not finite.
  static bool run(const Problem& p, const ConstMap& x, const void* weight, const void* bias,
                  bool flip, const Map& out, ParallelFor parallel_for) {
    Packed call(p, x, weight, bias, flip, out);
    parallel_for(
        call.blocks_ * p.batch * call.parts_,
        [](int64_t task, void* context) { static_cast<Packed*>(context)->compute(task); }, &call);
    return !call.failed_;
  }

 private:
  Packed(const Problem& p, const ConstMap& x, const void* weight, const void* bias, bool flip,
         const Map& out)
      : problem_(p),
        x_(x),
        out_(out),
        filter_(p, weight, bias, flip),
        call_(next_call()),
        blocks_(ceil_div(p.channels, L)),
        column_phases_(minimum(p.dilation, p.width)),
        large_(p.batch * p.channels * p.height * p.width > (256 << 10)),
        position_(p.dilation > 1 ? p.width : 0) {
    const int64_t d = p.dilation;
    constexpr int64_t kPackedVectors = (384 << 10) / (L * sizeof(S));
    // Wide maps are cut into columns so that a few rows fit into the cache.
    column_strip_ = p.width;
    if (d == 1) {
      const int64_t columns = maximum(kPackedVectors / (filter_.height - 1 + 4 * Block::kMaxRows),
                                      2 * filter_.width + 4 * Block::kMaxColumns);
      column_strip_ = ceil_div(p.width, ceil_div(p.width, columns));
    }
    column_strips_ = ceil_div(p.width, column_strip_);
    const int64_t stored = minimum(p.width, column_strip_ + filter_.width - 1);
    const int64_t height = ceil_div(p.height, d);
    const int64_t row_work = column_strip_ * d * minimum(filter_.height, height) *
                             minimum(filter_.width, ceil_div(p.width, d));
    row_strip_ =
        strip_rows(height, p.batch * blocks_ * column_strips_, row_work, filter_.height / 2,
                   kPackedVectors / (stored * d) - filter_.height, Block::kMaxRows);
    row_strips_ = ceil_div(height, row_strip_);
    parts_ = row_strips_ * column_strips_;

    int32_t at = 0;
    for (int64_t phase = 0; d > 1 && phase < column_phases_; ++phase)
      for (int64_t w = phase; w < p.width; w += d) position_.get()[w] = at++;
  }

  static int64_t next_call() {
    static int64_t calls = 0;
    return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
  }

  void fail() { __atomic_store_n(&failed_, true, __ATOMIC_RELAXED); }

  // The packed filter of a block of channels. A thread keeps what it used last: its next task is
  // mostly of the same block.
  const S* weight(int64_t block, int channels) {
    struct Last {
      int64_t call = 0, block = 0, size = 0;
      S* data = nullptr;
      ~Last() { std::free(data); }
    };
    static thread_local Last last;
    if (last.call == call_ && last.block == block) return last.data;
    last.call = 0;
    const int64_t size = filter_.size();
    if (size > last.size) {
      std::free(last.data);
      last.data = nullptr;
      last.size = 0;
      last.data = static_cast<S*>(allocate_aligned(size * static_cast<int64_t>(sizeof(S))));
      last.size = size;
    }
    if (!filter_.pack_channels(block * L, channels, last.data)) return nullptr;
    last.call = call_;
    last.block = block;
    return last.data;
  }

  // rows x columns of x, source the first of them, into [row][phase][lead, columns, trail][lane].
  bool pack_rows(const T* source, Strides strides, int channels, int64_t rows, int64_t columns,
                 S* singles, S* packed) const {
    const int32_t* position = problem_.dilation > 1 ? position_.get() : nullptr;
    if constexpr (Math::kStep == 1) {
      (void)singles;
      pack<V>(source, strides, channels, rows, columns, position, packed, columns);
      return true;
    } else {
      bool finite = true;
      for (int64_t r0 = 0; r0 < rows; r0 += single_rows(columns)) {
        const int64_t count = minimum(single_rows(columns), rows - r0);
        pack<V>(source + r0 * strides.h, strides, channels, count, columns, position, singles,
                columns);
        for (int64_t r = 0; r < count; ++r) {
          const S* row = singles + r * columns * L;
          for (int64_t phase = 0; phase < column_phases_; ++phase) {
            const int64_t width = phase_size(phase, columns);
            finite &= Math::join_row(row, width, packed);
            row += width * L;
            packed += (width + Math::kLead + Math::kTrail) * L;
          }
        }
      }
      return finite;
    }
  }

  // What a group of rows will write, while it is computed.
  void prefetch_out(const T* out, int channels, int64_t rows, int64_t columns) const {
    const Strides& so = out_.strides;
    constexpr int64_t kLine = 64 / sizeof(T);
    if (so.c == 1) {
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t w = 0; w < columns; ++w)
          prefetch<true>(reinterpret_cast<uintptr_t>(out + r * so.h + w * so.w));
    } else if (so.w == 1) {
      for (int l = 0; l < channels; ++l)
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t w = 0; w < columns; w += kLine)
            prefetch<true>(reinterpret_cast<uintptr_t>(out + l * so.c + r * so.h + w));
    }
  }

  static int64_t single_rows(int64_t columns) { return maximum(1, 128 / columns); }

  int64_t phase_size(int64_t phase, int64_t size) const {
    return (size - phase + problem_.dilation - 1) / problem_.dilation;
  }

  void compute(int64_t task) {
    const Problem& p = problem_;
    const int64_t d = p.dilation;
    const int64_t block = task / (p.batch * parts_);
    const int64_t image = task / parts_ % p.batch;
    const int64_t part = task % parts_;
    const int64_t column_part = part % column_strips_;
    const int64_t row_part = part / column_strips_;
    const int channels = static_cast<int>(minimum(L, p.channels - block * L));

    // Row r of a strip stands for the d rows r * d ... of the map, one of each residue.
    const int64_t height = ceil_div(p.height, d);
    const int64_t row0 = row_part * row_strip_, row1 = minimum(height, row0 + row_strip_);
    const int64_t column0 = column_part * column_strip_;
    const int64_t out_columns = minimum(column_strip_, p.width - column0);
    // What of x is packed.
    const int64_t top = maximum(0, row0 - filter_.height / 2);
    const int64_t rows = minimum(p.height, (row1 + filter_.height / 2) * d) - top * d;
    const int64_t beside = column_strips_ == 1 ? 0 : filter_.width / 2;
    const int64_t left = maximum(0, column0 - beside);
    const int64_t columns = minimum(p.width, column0 + out_columns + beside) - left;
    const int64_t pitch = columns + (Math::kLead + Math::kTrail) * column_phases_;

    // Tiles go straight to an output that has lanes; else a group of rows is unpacked at a time,
    // large enough for long runs, small enough for the cache.
    const bool direct = kSameType && out_.strides.c == 1 && channels == L;
    const int64_t row_tiles = ceil_div(row1 - row0, minimum(Block::kMaxRows, filter_.height));
    const int64_t group = maximum(1, 128 / (out_columns * Block::kMaxRows * d));  // row tiles
    const int64_t packed_size = rows * pitch * L;
    const int64_t single_size = Math::kStep == 1 ? 0 : single_rows(columns) * columns * L;
    const int64_t result_size = direct ? 0 : group * Block::kMaxRows * d * out_columns * L;
    constexpr int64_t kScalar = sizeof(S);
    Scratch scratch(Scratch::rounded(packed_size * kScalar) +
                    Scratch::rounded(single_size * kScalar) +
                    Scratch::rounded(result_size * kScalar));
    S* packed = scratch.template take<S>(packed_size);
    S* singles = scratch.template take<S>(single_size);
    S* result = scratch.template take<S>(result_size);

    const Strides& sx = x_.strides;
    const T* source = static_cast<const T*>(x_.data) + image * sx.n + block * L * sx.c +
                      top * d * sx.h + left * sx.w;
    Plane<S> plane{};
    plane.weight = weight(block, channels);
    if (!plane.weight ||
        !pack_rows(source, {0, sx.c, sx.h, sx.w}, channels, rows, columns, singles, packed))
      return fail();
    plane.x_row = d * pitch * L;
    plane.kernel_height = filter_.height;
    plane.kernel_width = filter_.width;
    plane.steps = filter_.steps;
    plane.bias = plane.weight + filter_.bias_offset();

    const Strides& so = out_.strides;
    T* target = static_cast<T*>(out_.data) + image * so.n + block * L * so.c + column0 * so.w;
    plane.out_row = direct ? d * so.h : d * out_columns * L;
    plane.out_column = direct ? d * so.w : L;
    for (int64_t tile0 = 0; tile0 < row_tiles; tile0 += group) {
      const int64_t tile1 = minimum(row_tiles, tile0 + group);
      const int64_t group0 = row0 + (row1 - row0) * tile0 / row_tiles;
      const int64_t group1 = row0 + (row1 - row0) * tile1 / row_tiles;
      const int64_t out_rows = minimum(p.height, group1 * d) - group0 * d;
      T* out = target + group0 * d * so.h;
      if (large_) prefetch_out(out, channels, out_rows, out_columns);
      for (int64_t tile = tile0; tile < tile1; ++tile) {
        const int64_t begin = row0 + (row1 - row0) * tile / row_tiles;
        const int64_t last = row0 + (row1 - row0) * (tile + 1) / row_tiles;
        for (int64_t row_phase = 0; row_phase < minimum(d, p.height - begin * d); ++row_phase) {
          const int64_t end = minimum(last, phase_size(row_phase, p.height));
          plane.rows = phase_size(row_phase, rows);
          plane.x = packed + row_phase * pitch * L;
          S* to = result + (begin - group0) * plane.out_row + row_phase * out_columns * L;
          for (int64_t phase = 0; phase < column_phases_; ++phase) {
            const int64_t width = phase_size(phase, out_columns);
            plane.columns = phase_size(phase, columns) + Math::kLead + Math::kTrail;
            if constexpr (kSameType)
              if (direct) to = target + begin * plane.out_row + row_phase * so.h + phase * so.w;
            Block::run(plane, begin - top, end - top, column0 - left, width, to);
            plane.x += plane.columns * L;
            to += width * L;
          }
        }
      }
      if (!direct)
        unpack<V>(result, out_columns, d > 1 ? position_.get() : nullptr, channels, out_rows,
                  out_columns, out, {0, so.c, so.h, so.w});
    }
  }

  template <class A, class B>
  struct Same {
    static constexpr bool value = false;
  };
  template <class A>
  struct Same<A, A> {
    static constexpr bool value = true;
  };
  static constexpr bool kSameType = Same<S, T>::value;

  const Problem problem_;
  const ConstMap x_;
  const Map out_;
  const Filter<Math, T> filter_;
  const int64_t call_;
  const int64_t blocks_;            // of L channels
  const int64_t column_phases_;     // residues modulo the dilation
  const bool large_;                // more than a core's cache holds
  const Buffer<int32_t> position_;  // of each column in a packed row
  int64_t column_strip_, column_strips_, row_strip_, row_strips_;
  int64_t parts_;  // tasks of one image and block of channels
  bool failed_ = false;
};

// float32 maps in channels_last and filters so small that packing would take the longer time. Needs
// whole vectors of channels; the last block overlaps the one before it.
class Unpacked {
  using V = Float;
  using Block = Tiles<Single<Float>, true>;
  static constexpr int64_t L = V::kLanes;

 public:
  static bool suits(const Problem& p, const ConstMap& x, const Map& out) {
    return x.strides.c == 1 && out.strides.c == 1 && p.channels >= L &&
           maximum(p.kernel_height, p.kernel_width) <= kStridedKernel;
  }

  static void run(const Problem& p, const ConstMap& x, const void* weight, const void* bias,
                  bool flip, const Map& out, ParallelFor parallel_for) {
    Unpacked call(p, x, weight, bias, flip, out);
    parallel_for(
        p.batch * call.parts_,
        [](int64_t task, void* context) { static_cast<Unpacked*>(context)->compute(task); }, &call);
  }

 private:
  Unpacked(const Problem& p, const ConstMap& x, const void* weight, const void* bias, bool flip,
           const Map& out)
      : problem_(p),
        x_(x),
        out_(out),
        filter_(p, weight, bias, flip),
        blocks_(ceil_div(p.channels, L)),
        weights_(blocks_ * filter_.size()) {
    for (int64_t block = 0; block < blocks_; ++block)
      filter_.pack_channels(channel(block), static_cast<int>(L),
                            weights_.get() + block * filter_.size());
    // All channels of a few rows at a time, as they lie in memory; of as many columns as leave
    // these rows in the cache.
    constexpr int64_t kVectors = (512 << 10) / (L * sizeof(float));
    const int64_t d = p.dilation;
    const int64_t height = ceil_div(p.height, d), width = ceil_div(p.width, d);
    const int64_t rows = (filter_.height + Block::kMaxRows - 1) * d;
    const int64_t columns = maximum(2 * Block::kMaxColumns, kVectors / (rows * d * blocks_));
    column_strips_ = ceil_div(width, columns);
    column_strip_ = ceil_div(width, column_strips_);
    const int64_t row_work = column_strip_ * d * d * filter_.height * filter_.width * blocks_;
    row_strip_ = strip_rows(height, p.batch * column_strips_, row_work, 0, height, Block::kMaxRows);
    row_strips_ = ceil_div(height, row_strip_);
    parts_ = column_strips_ * row_strips_;
  }

  int64_t channel(int64_t block) const { return minimum(block * L, problem_.channels - L); }

  void compute(int64_t task) const {
    const Problem& p = problem_;
    const int64_t d = p.dilation;
    const int64_t image = task / parts_;
    const int64_t part = task % parts_;
    const int64_t row_part = part % row_strips_;
    const int64_t column0 = part / row_strips_ * column_strip_;

    // Row r stands for the d rows r * d ... of the map, one of each residue, and so do columns.
    const int64_t height = ceil_div(p.height, d);
    const int64_t row0 = row_part * row_strip_, row1 = minimum(height, row0 + row_strip_);
    const Strides &sx = x_.strides, &so = out_.strides;
    const float* x = static_cast<const float*>(x_.data) + image * sx.n;
    float* out = static_cast<float*>(out_.data) + image * so.n;
    Plane<float> plane{};
    plane.x_row = d * sx.h;
    plane.x_column = d * sx.w;
    plane.kernel_height = filter_.height;
    plane.kernel_width = filter_.width;
    plane.steps = filter_.steps;
    plane.out_row = d * so.h;
    plane.out_column = d * so.w;

    const int64_t row_tiles = ceil_div(row1 - row0, minimum(Block::kMaxRows, filter_.height));
    for (int64_t tile = 0; tile < row_tiles; ++tile) {
      const int64_t begin = row0 + (row1 - row0) * tile / row_tiles;
      const int64_t last = row0 + (row1 - row0) * (tile + 1) / row_tiles;
      for (int64_t row_phase = 0; row_phase < minimum(d, p.height - begin * d); ++row_phase) {
        plane.rows = (p.height - row_phase + d - 1) / d;
        for (int64_t block = 0; block < blocks_; ++block) {
          plane.weight = weights_.get() + block * filter_.size();
          plane.bias = plane.weight + filter_.bias_offset();
          for (int64_t phase = 0; phase < minimum(d, p.width); ++phase) {
            plane.columns = (p.width - phase + d - 1) / d;
            plane.x = x + row_phase * sx.h + phase * sx.w + channel(block);
            const int64_t width = minimum(column_strip_, plane.columns - column0);
            Block::run(plane, begin, minimum(last, plane.rows), column0, width,
                       out + (begin * d + row_phase) * so.h + (column0 * d + phase) * so.w +
                           channel(block));
          }
        }
      }
    }
  }

  const Problem problem_;
  const ConstMap x_;
  const Map out_;
  const Filter<Single<Float>, float> filter_;
  const int64_t blocks_;
  const Buffer<float> weights_;
  int64_t column_strip_, column_strips_;
  int64_t row_strip_, row_strips_;
  int64_t parts_;  // tasks of one image
};

template <class>
void forward(const Problem& p, const ConstMap& x, const void* weight, const void* bias, bool flip,
             const Map& out, ParallelFor parallel_for) {
#if UNIREPLKNET_BFLOAT16_PAIRS
  if (p.dtype != DType::kBFloat16 ||
      !Packed<Pairs, BFloat16>::run(p, x, weight, bias, flip, out, parallel_for))
    kernels_avx512().forward(p, x, weight, bias, flip, out, parallel_for);
#else
  switch (p.dtype) {
    case DType::kFloat32:
      if (Unpacked::suits(p, x, out))
        Unpacked::run(p, x, weight, bias, flip, out, parallel_for);
      else
        Packed<Single<Float>, float>::run(p, x, weight, bias, flip, out, parallel_for);
      return;
    case DType::kFloat64:
      Packed<Single<Double>, double>::run(p, x, weight, bias, flip, out, parallel_for);
      return;
    case DType::kFloat16:
      Packed<Single<Float>, Half>::run(p, x, weight, bias, flip, out, parallel_for);
      return;
    case DType::kBFloat16:
      Packed<Single<Float>, BFloat16>::run(p, x, weight, bias, flip, out, parallel_for);
      return;
  }
#endif
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
