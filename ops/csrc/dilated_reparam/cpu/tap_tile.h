// Convolutions with few taps, of any dilation, on maps that are packed (pack.h) and small enough
// for a cache.
//
// A tile is one row of T neighbouring columns in the same place of I maps, its sums in I*T vector
// registers. Every multiply-add takes x from memory, which a cache delivers as fast as it is
// computed with; a weight is loaded once for I*T of them. Kernel columns for which some columns of
// the tile look outside the map leave these out, kernel rows outside are skipped, so that no
// multiply-add is spent on padding and none is stored.
#pragma once

#include <utility>

#include "../../cpu/pack.h"
#include "../../cpu/vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// One convolution of several maps.
struct Taps {
  const float* x;       // the first vector of the first map
  int64_t row, map;     // scalars from a row to the next, from a map to the next
  const float* weight;  // [kernel column][kernel row][lane]
  int64_t size, dilation;
};

template <int I, int T>
struct TapTile {
  using V = Float;
  static constexpr int L = V::kLanes;

  // Kernel rows n, first w, in which the columns [T0, T1) of the tile lie inside; column 0 of the
  // tile meets x.
  template <int T0, int T1>
  static UNIREPLKNET_INLINE void add(V (&sum)[I][T], const float* x, int64_t step, int64_t map,
                                     const float* w, int64_t n) {
    for (; n > 0; --n) {
      const V weight = V::load(w);
#pragma GCC unroll 16
      for (int i = 0; i < I; ++i)
#pragma GCC unroll 16
        for (int t = T0; t < T1; ++t) sum[i][t].multiply_add(V::load(x + i * map + t * L), weight);
      x += step;
      w += L;
    }
  }

  // `add` without the first or the last `cut` columns; kCut <= cut < T.
  template <int kCut, bool kLeft>
  static UNIREPLKNET_INLINE void add_cut(int64_t cut, V (&sum)[I][T], const float* x, int64_t step,
                                         int64_t map, const float* w, int64_t n) {
    if constexpr (kCut < T) {
      if (cut == kCut)
        add<kLeft ? kCut : 0, kLeft ? T : T - kCut>(sum, x, step, map, w, n);
      else
        add_cut<kCut + 1, kLeft>(cut, sum, x, step, map, w, n);
    }
  }

  // out = the sum over all taps + bias, or, if that is null, + out, for the columns [column,
  // column + T) of row y of maps of this height and width. out points to the first of them.
  static void run(const Taps* taps, int64_t count, int64_t height, int64_t width, int64_t y,
                  int64_t column, const float* bias, float* out, int64_t out_map) {
    V sum[I][T];
#pragma GCC unroll 16
    for (int i = 0; i < I; ++i)
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) sum[i][t] = V::load(bias ? bias : out + i * out_map + t * L);
    for (const Taps* taps_end = taps + count; taps < taps_end; ++taps) {
      const int64_t d = taps->dilation, half = taps->size / 2;
      const int64_t above = minimum(half, y / d), below = minimum(half, (height - 1 - y) / d);
      const int64_t rows = above + below + 1;
      const float* x = taps->x + (y - above * d) * taps->row;
      const float* w = taps->weight + (half - above) * L;
      const int64_t step = d * taps->row, map = taps->map;
      for (int64_t j = 0; j < taps->size; ++j, w += taps->size * L) {
        const int64_t first = column + (j - half) * d;
        if (first <= -T) continue;
        if (first >= width) break;
        const float* from = x + first * L;
        // At most one of both sides is cut, as T <= width.
        const int64_t left = -first, right = first + T - width;
        if (left > 0)
          add_cut<1, true>(left, sum, from, step, map, w, rows);
        else if (right > 0)
          add_cut<1, false>(right, sum, from, step, map, w, rows);
        else
          add<0, T>(sum, from, step, map, w, rows);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < I; ++i)
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) sum[i][t].store(out + i * out_map + t * L);
  }
};

// The tiles that are compiled: of 1 to kMaxMaps maps and 1 to kMaxColumns columns, as far as their
// sums fit into the registers.
struct TapTiles {
  static constexpr int kSums = Isa::kRegisters == 32 ? 28 : 12;
  static constexpr int kMaxMaps = Isa::kRegisters == 32 ? 4 : 3;
  static constexpr int kMaxColumns = kSums / 2;
  using Run = void (*)(const Taps*, int64_t, int64_t, int64_t, int64_t, int64_t, const float*,
                       float*, int64_t);
  struct Table {
    Run run[kMaxMaps * kMaxColumns];
  };

  template <int I, int T>
  static constexpr Run find() {
    if constexpr (I * T <= kSums) return TapTile<I, T>::run;
    return nullptr;
  }

  template <int... I>
  static constexpr Table table(std::integer_sequence<int, I...>) {
    return {{find<I / kMaxColumns + 1, I % kMaxColumns + 1>()...}};
  }
};

// As TapTile::run for whole maps, of which there are at most kMaxMaps; rows of `out` follow one
// another.
inline void run_taps(const Taps* taps, int64_t count, int64_t maps, int64_t height, int64_t width,
                     const float* bias, float* out, int64_t out_map) {
  constexpr int64_t L = Float::kLanes;
  constexpr int kMaxColumns = TapTiles::kMaxColumns;
  static constexpr TapTiles::Table table =
      TapTiles::table(std::make_integer_sequence<int, TapTiles::kMaxMaps * kMaxColumns>{});
  const int64_t tiles = ceil_div(width, minimum(kMaxColumns, TapTiles::kSums / maps));
  for (int64_t y = 0; y < height; ++y)
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t begin = width * i / tiles, end = width * (i + 1) / tiles;
      table.run[(maps - 1) * kMaxColumns + end - begin - 1](
          taps, count, height, width, y, begin, bias, out + (y * width + begin) * L, out_map);
    }
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
