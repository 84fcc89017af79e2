// The convolution's filters, in lanes and in the order in which tiles take them (tile.h).
#pragma once

#include "../../cpu/memory.h"
#include "../../cpu/pack.h"
#include "../../cpu/vector.h"
#include "kernels.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

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

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
