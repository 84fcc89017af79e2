// Tiles of outputs in registers: the innermost part of the convolution (forward.h).
#pragma once

#include <utility>

#include "../../cpu/memory.h"
#include "../../cpu/pack.h"
#include "../../cpu/unroll.h"
#include "../../cpu/vector.h"

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

// One dense convolution. Rows and columns count from the first ones stored; a map that continues
// beyond them is stored as far as the outputs look. Elements of x and of the output are scalars,
// or what vectors convert to and from them.
template <class S, class Element = S>
struct Plane {
  const Element* x;       // the first vector of row 0
  int64_t x_row;          // elements from row to row ...
  int64_t x_column;       // ... and from column to column: kLanes, unless kStrided
  int64_t rows, columns;  // stored; columns with lead and trail
  const S* weight;        // [kernel_height][steps][lane]
  int64_t kernel_height, kernel_width, steps;
  const S* bias;  // one vector
  int64_t out_row, out_column;
  bool prefetches;  // what the tile below will need; kStrided only
};

// kStrided: x_column is what the plane says, the vectors of x need not be aligned, and the filter
// has at most kStridedKernel rows and columns.
constexpr int kStridedKernel = 7;

template <class Math, class Element, int R, int T, bool kStrided>
struct Tile {
  using V = typename Math::Vector;
  using S = typename V::Scalar;
  using P = Plane<S, Element>;
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
  static Columns divide(int64_t first, const P& p) {
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
  static UNIREPLKNET_INLINE void step(V (&sum)[R][T], const Element* x, int64_t x_column,
                                      const S* w, int64_t w_row) {
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
  static UNIREPLKNET_INLINE void row(V (&sum)[R][T], const Element* x, int64_t x_column, const S* w,
                                     int64_t w_row, const Columns& c) {
    if (c.left > 0) {
      const Element* from = x + c.left_x * x_column;
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
      const Element* from = x + c.full_x * x_column;
      const S* tap = w + c.full_step * L;
      for (int64_t i = c.full; i > 0; --i) {
        step<R0, R1, 0, T>(sum, from, x_column, tap, w_row);
        from += kStep * x_column;
        tap += L;
      }
    }
    if (c.right > 0) {
      const Element* from = x + c.right_x * x_column;
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
  static void run(const P& p, int64_t row0, int64_t column0, Element* out) {
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
    const Element* x = p.x + y * p.x_row;
    if (kStrided && p.prefetches) {  // past the end of the map that does nothing
      const auto x_ahead = reinterpret_cast<uintptr_t>(p.x) +
                           ((row0 + R + above) * p.x_row + column0 * x_column) * sizeof(Element);
      const auto out_ahead = reinterpret_cast<uintptr_t>(out) + R * p.out_row * sizeof(Element);
      for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) {
          prefetch<false, 2>(x_ahead + (r * p.x_row + t * x_column) * sizeof(Element));
          prefetch<true, 2>(out_ahead + (r * p.out_row + t * p.out_column) * sizeof(Element));
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
template <class Math, bool kStrided, class Element = typename Math::Vector::Scalar>
struct Tiles {
  using P = Plane<typename Math::Vector::Scalar, Element>;
  using Run = void (*)(const P&, int64_t, int64_t, Element*);
  static constexpr int kMaxRows = 3;
  static constexpr int kMaxColumns =
      Isa::kRegisters == 32 && sizeof(typename Math::Vector::Scalar) == 4 ? 8 : 4;

  static Run find(int64_t rows, int64_t columns) {
    static constexpr Table table = make(std::make_integer_sequence<int, kMaxRows * kMaxColumns>{});
    return table.run[(rows - 1) * kMaxColumns + columns - 1];
  }

  // Output rows [row0, row1) and columns [column0, column0 + width), of which there are at most
  // kMaxRows and kernel_height rows, any number of columns.
  static void run(const P& plane, int64_t row0, int64_t row1, int64_t column0, int64_t width,
                  Element* out) {
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
    return {{Tile<Math, Element, I / kMaxColumns + 1, I % kMaxColumns + 1, kStrided>::run...}};
  }
};

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
