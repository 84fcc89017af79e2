// The convolution of channels_last maps by small filters: the maps are read in place (forward.h).
#pragma once

#include "../../cpu/memory.h"
#include "../../cpu/vector.h"
#include "filter.h"
#include "kernels.h"
#include "strips.h"
#include "tile.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// Maps in channels_last and filters so small that packing would take the longer time. Needs whole
// vectors of channels; the last block overlaps the one before it.
//
// A tile is computed for one block of channels after the other, so that the map is read as it lies
// in memory. With the channels outermost, the lines of a block are so far apart that they meet in a
// few sets of the cache, and no line is there any more when the next tile needs it.
template <class T>
class Unpacked {
  using V = Float;
  using Block = Tiles<Single<Float>, true, T>;
  static constexpr int64_t L = V::kLanes;

 public:
  static bool suits(const Problem& p, const ConstMap& x, const Map& out) {
    const int64_t kernel = maximum(p.kernel_height, p.kernel_width);
    return Isa::kLoads<T> && x.strides.c == 1 && out.strides.c == 1 && p.channels >= L &&
           (kernel <= 5 || (kernel <= kStridedKernel && p.dilation == 1 && is_large(p)));
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
    // Of as many columns as leave the rows of a tile in the cache.
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

  // More than the cache holds: packing would read it from memory in pieces of one vector.
  static bool is_large(const Problem& p) {
    constexpr int64_t kBytes = 6 << 20;
    return p.batch * p.channels * p.height * p.width * static_cast<int64_t>(sizeof(T)) > kBytes;
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
    const T* x = static_cast<const T*>(x_.data) + image * sx.n;
    T* out = static_cast<T*>(out_.data) + image * so.n;
    Plane<float, T> plane{};
    plane.x_row = d * sx.h;
    plane.x_column = d * sx.w;
    plane.kernel_height = filter_.height;
    plane.kernel_width = filter_.width;
    plane.steps = filter_.steps;
    plane.out_row = d * so.h;
    plane.out_column = d * so.w;
    plane.prefetches = is_large(p);

    const int64_t row_tiles = ceil_div(row1 - row0, minimum(Block::kMaxRows, filter_.height));
    for (int64_t tile = 0; tile < row_tiles; ++tile) {
      const int64_t begin = row0 + (row1 - row0) * tile / row_tiles;
      const int64_t last = row0 + (row1 - row0) * (tile + 1) / row_tiles;
      for (int64_t row_phase = 0; row_phase < minimum(d, p.height - begin * d); ++row_phase) {
        plane.rows = (p.height - row_phase + d - 1) / d;
        for (int64_t phase = 0; phase < minimum(d, p.width); ++phase) {
          plane.columns = (p.width - phase + d - 1) / d;
          const int64_t width = minimum(column_strip_, plane.columns - column0);
          const int64_t column_tiles = ceil_div(width, Block::kMaxColumns);
          for (int64_t i = 0; i < column_tiles; ++i) {
            const int64_t left = column0 + width * i / column_tiles;
            const int64_t right = column0 + width * (i + 1) / column_tiles;
            const auto run = Block::find(minimum(last, plane.rows) - begin, right - left);
            T* to = out + (begin * d + row_phase) * so.h + (left * d + phase) * so.w;
            for (int64_t block = 0; block < blocks_; ++block) {
              plane.weight = weights_.get() + block * filter_.size();
              plane.bias = plane.weight + filter_.bias_offset();
              plane.x = x + row_phase * sx.h + phase * sx.w + channel(block);
              run(plane, begin, left, to + channel(block));
            }
          }
        }
      }
    }
  }

  const Problem problem_;
  const ConstMap x_;
  const Map out_;
  const Filter<Single<Float>, T> filter_;
  const int64_t blocks_;
  const Buffer<float> weights_;
  int64_t column_strip_, column_strips_;
  int64_t row_strip_, row_strips_;
  int64_t parts_;  // tasks of one image
};

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
