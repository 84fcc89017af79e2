// The sizes of one convolution, as the host functions hand them to the launch functions of every
// kernel family.
#pragma once

#include <algorithm>
#include <string>

#include "ptx.cuh"

namespace unireplknet::cuda {

// x and out are (batch, channels, height, width), the filter (channels, kernel_height,
// kernel_width), all contiguous; stride 1, zero padding of dilation * (kernel - 1) / 2 on each
// side, so that out has the size of x. Kernel sizes are odd. The host function has checked all
// this, and that no size is zero.
struct Shape {
  int64_t batch, channels;
  int height, width;
  int kernel_height, kernel_width, dilation;

  __host__ __device__ int64_t planes() const { return batch * channels; }
  __host__ __device__ int padding_height() const { return dilation * (kernel_height - 1) / 2; }
  __host__ __device__ int padding_width() const { return dilation * (kernel_width - 1) / 2; }
};

// Ways to compute that no GPU has been timed with. A call takes those that it is asked to take,
// where they suit its shape.
struct Variants {
  bool seven_rows = false;     // gradient of the filter: a warp or thread has 7 filter rows
  bool prefetch = false;       // a block loads a tile while it computes on the one before
  bool channels_last = false;  // 16-bit maps in that layout are not copied to NCHW and back

  bool operator==(const Variants& other) const {
    return seven_rows == other.seven_rows && prefetch == other.prefetch &&
           channels_last == other.channels_last;
  }
};

// Reads their names, separated by commas; false if one is unknown.
inline bool parse_variants(const std::string& names, Variants& variants) {
  variants = {};
  for (size_t begin = 0, end; begin < names.size(); begin = end + 1) {
    end = std::min(names.find(',', begin), names.size());
    const std::string name = names.substr(begin, end - begin);
    if (name == "seven_rows") {
      variants.seven_rows = true;
    } else if (name == "prefetch") {
      variants.prefetch = true;
    } else if (name == "channels_last") {
      variants.channels_last = true;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace unireplknet::cuda
