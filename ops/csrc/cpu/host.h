// What host functions of CPU ops share: from torch's tensors to the types of the kernels.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "../checks.h"
#include "types.h"

namespace unireplknet {

inline DType to_dtype(const char* op, ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    default:
      check(false, op, ": dtype ", torch::headeronly::toString(type),
            " is not supported on the CPU: use float32, float64, float16 or bfloat16");
      return DType::kFloat32;
  }
}

inline Strides strides_of(const Tensor& map) {
  return {map.stride(0), map.stride(1), map.stride(2), map.stride(3)};
}

inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Is a ParallelFor.
inline void parallel_for(int64_t tasks, void (*body)(int64_t, void*), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [=](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) body(task, context);
  });
}

}  // namespace unireplknet
