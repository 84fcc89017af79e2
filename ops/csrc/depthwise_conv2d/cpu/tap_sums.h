// Sums over positions for tiles of a filter's taps, held in registers: the innermost part of the
// gradient by the filter (backward_weight.h).
#pragma once

#include <type_traits>

#include "../../cpu/vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

constexpr int greatest_common_divisor(int a, int b) {
  return b == 0 ? a : greatest_common_divisor(b, a % b);
}

// The size of one of `parts` nearly equal parts of total.
constexpr int64_t part_size(int64_t total, int64_t parts, int64_t part) {
  return total / parts + (part < total % parts);
}

// One tile over neighbouring rows of x that all its kernel rows pair with a row of grad_output, in
// one image or several that lie one behind the other.
template <class Scalar, class Element>
struct Sweep {
  const Element* grad_output;  // at the first row of x, kernel row and output column
  const Element* x;            // at the first row and the input column of the first kernel column
  Scalar* sums;                // of the first kernel row and column
  int64_t images;
  int64_t rows, columns;  // rows of x; output columns
  int64_t dilation;
  int64_t grad_output_image, x_image;    // elements from an image to the next
  int64_t grad_output_row, x_row;        // ... from a row
  int64_t grad_output_column, x_column;  // ... from a column
  int64_t kernel_row_sums;  // scalars from the sums of a kernel row to those of the next
};

template <class Operand, class Element, int kRows, int kColumns>
void sweep_tile(const Sweep<typename Operand::Sum::Scalar, Element>& s) {
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
  for (int64_t image = 0; image < s.images; ++image)
    for (int64_t row = 0; row < s.rows; ++row)
      for (int64_t phase = 0; phase < phases; ++phase) {
        const Element* g = s.grad_output + image * s.grad_output_image + row * s.grad_output_row +
                           phase * s.grad_output_column;
        const Element* x = s.x + image * s.x_image + row * s.x_row + phase * s.x_column;
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

// A rectangle of an image, rows [top, bottom) and columns [left, right), packed or in its map; or
// the same of several images.
template <class Element>
struct Block {
  int64_t top, bottom, left, right;
  const Element* data = nullptr;
  int64_t row = 0, column = 0;  // elements from one to the next
  int64_t images = 1, image = 0;
  int64_t rows() const { return bottom - top; }
  int64_t columns() const { return right - left; }
  const Element* at(int64_t h, int64_t w) const {
    return data + (h - top) * row + (w - left) * column;
  }
};

// The taps of one filter on maps of one size. Operand: how packed vectors are multiplied
// (backward_weight.h). Element: what it loads; other than scalars only where maps are read in
// place, up to kMostInPlace kernel columns.
template <class Operand, class Element = typename Operand::Sum::Scalar>
class TapSums {
 public:
  using Sum = typename Operand::Sum;
  using Scalar = typename Sum::Scalar;
  static constexpr int L = Sum::kLanes;

  // A tile takes its sums, the window and one vector of grad_output from the registers.
  static constexpr int kMostColumns = Isa::kRegisters == 32 ? 7 : 5;
  static constexpr int kMostInPlace = 5;

  TapSums(int64_t kernel_height, int64_t kernel_width, int64_t dilation, int64_t height,
          int64_t width)
      : kernel_height(kernel_height),
        kernel_width(kernel_width),
        dilation(dilation),
        taps_above(minimum(kernel_height / 2, (height - 1) / dilation)),
        taps_left(minimum(kernel_width / 2, (width - 1) / dilation)),
        kernel_rows(2 * taps_above + 1),
        kernel_columns(2 * taps_left + 1) {}

  // Zero columns that a tile can meet on one side of x.
  int64_t padding() const { return minimum(taps_left, kMostColumns - 1) * dilation; }

  // Adds all taps over the output columns of g, which end at `width` at most, the map's width, to
  // sums [kernel row][kernel column][lane]. x has its zero columns.
  void add(const Block<Element>& g, const Block<Element>& x, int64_t width, Scalar* sums) const {
    const int64_t column_tiles = ceil_div(kernel_columns, kMostColumns);
    int64_t j = -taps_left;
    for (int64_t column_tile = 0; column_tile < column_tiles; ++column_tile) {
      const int columns = static_cast<int>(part_size(kernel_columns, column_tiles, column_tile));
      const int64_t left = maximum(g.left, -(j + columns - 1) * dilation);
      const int64_t right = minimum(g.right, width - j * dilation);
      add_tiles(g, x, left, right, j, columns, sums);
      j += columns;
    }
  }

  // All kernel rows of the kernel columns [j, j + columns) over the output columns [left, right) of
  // a block.
  void add_tiles(const Block<Element>& g, const Block<Element>& x, int64_t left, int64_t right,
                 int64_t j, int columns, Scalar* sums) const {
    if (left >= right) return;
    const int64_t row_tiles = ceil_div(kernel_rows, most_rows(columns));
    int64_t i = -taps_above;
    for (int64_t row_tile = 0; row_tile < row_tiles; ++row_tile) {
      const int rows = static_cast<int>(part_size(kernel_rows, row_tiles, row_tile));
      add_tile(g, x, left, right, i, rows, j, columns, sums);
      i += rows;
    }
  }

  const int64_t kernel_height, kernel_width, dilation;
  const int64_t taps_above, taps_left;        // on either side of the centre, that meet the map
  const int64_t kernel_rows, kernel_columns;  // that meet the map

 private:
  static constexpr int kMostRows = 6;
  static constexpr int most_rows(int columns) {
    return static_cast<int>(minimum(kMostRows, (Isa::kRegisters - 1 - columns) / columns));
  }

  // The tile of kernel rows [i, i + rows) and columns [j, j + columns) over the output columns
  // [left, right) of a block.
  void add_tile(const Block<Element>& g, const Block<Element>& x, int64_t left, int64_t right,
                int64_t i, int rows, int64_t j, int columns, Scalar* sums) const {
    const int64_t d = dilation;
    Sweep<Scalar, Element> s;
    s.images = g.images;
    s.columns = right - left;
    s.grad_output_image = g.image;
    s.x_image = x.image;
    s.dilation = d;
    s.grad_output_row = g.row;
    s.x_row = x.row;
    s.grad_output_column = g.column;
    s.x_column = x.column;
    s.kernel_row_sums = kernel_width * L;

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
        s.sums = sums + ((i + first + kernel_height / 2) * kernel_width + j + kernel_width / 2) * L;
        sweep(static_cast<int>(last - first), columns, s);
      }
    }
  }

  static void sweep(int rows, int columns, const Sweep<Scalar, Element>& s) {
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
  static void sweep_rows(int rows, const Sweep<Scalar, Element>& s) {
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
  static void sweep_if_fits(const Sweep<Scalar, Element>& s) {
    constexpr int most = std::is_same_v<Element, Scalar> ? kMostColumns : kMostInPlace;
    if constexpr (kColumns <= most && kRows <= most_rows(kColumns))
      sweep_tile<Operand, Element, kRows, kColumns>(s);
  }
};

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
