// Argument checks that the host functions of all ops share. Each failure names the value and the
// way out.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

namespace unireplknet {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Throws std::runtime_error, which reaches Python as RuntimeError, without a source location in
// front.
template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

inline std::string to_text(const Tensor& tensor) {
  std::ostringstream text;
  text << '(';
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << ')';
  return text.str();
}

inline void check_map(const char* op, const char* name, const Tensor& map) {
  check(map.dim() == 4, op, ": ", name, " must have the shape (N, C, H, W), got ", to_text(map));
}

inline void check_same(const char* op, const char* name, const Tensor& tensor,
                       const char* reference_name, const Tensor& reference) {
  check(tensor.scalar_type() == reference.scalar_type(), op, ": ", name, " has dtype ",
        torch::headeronly::toString(tensor.scalar_type()), " but ", reference_name, " has ",
        torch::headeronly::toString(reference.scalar_type()));
  check(tensor.device() == reference.device(), op, ": ", name, " and ", reference_name,
        " are on different devices");
}

// Whether the map's strides rise in the order C, W, H, N (and it is not NCHW-contiguous as well):
// channels_last, or a slice of such a map, of its channels too, as torch's convolutions judge it.
inline bool is_channels_last(const Tensor& map) {
  if (map.is_contiguous()) return false;
  int64_t least = 1;
  for (int64_t dimension : {1, 3, 2, 0}) {
    if (map.size(dimension) == 1) continue;
    if (map.stride(dimension) < least) return false;
    least = map.stride(dimension) * map.size(dimension);
  }
  return true;
}

}  // namespace unireplknet
