// The convolution of maps of any layout and element type: rows are packed, then computed
// (forward.h).
#pragma once

#include <cstdlib>
#include <type_traits>

#include "../../cpu/memory.h"
#include "../../cpu/pack.h"
#include "../../cpu/vector.h"
#include "filter.h"
#include "kernels.h"
#include "strips.h"
#include "tile.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

template <class Math, class T>
class Packed {
  using V = typename Math::Vector;
  using S = typename V::Scalar;
  using Block = Tiles<Math, false>;
  static constexpr int64_t L = V::kLanes;
  static constexpr bool kSameType = std::is_same_v<S, T>;

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

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
