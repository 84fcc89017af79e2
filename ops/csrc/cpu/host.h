// What host functions of CPU ops share: from torch's tensors to the types of the kernels.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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

// A dense tensor of float32 after a check of its shape; none for none.
inline std::optional<Tensor> float32_tensor(const char* op, const char* name,
                                            const std::optional<Tensor>& tensor,
                                            const std::vector<int64_t>& shape) {
  if (!tensor) return std::nullopt;
  bool fits = tensor->dim() == static_cast<int64_t>(shape.size());
  std::string wanted;
  for (size_t i = 0; i < shape.size(); ++i) {
    fits = fits && tensor->size(static_cast<int64_t>(i)) == shape[i];
    wanted += (i ? ", " : "") + std::to_string(shape[i]);
  }
  check(fits, op, ": ", name, " must have the shape (", wanted, "), got ", to_text(*tensor));
  check(tensor->scalar_type() == ScalarType::Float, op, ": ", name, " has dtype ",
        torch::headeronly::toString(tensor->scalar_type()), ", not float32");
  return dense(*tensor);
}

inline const float* float32_data(const std::optional<Tensor>& tensor) {
  return tensor ? static_cast<const float*>(tensor->const_data_ptr()) : nullptr;
}

// Is a ParallelFor.
inline void parallel_for(int64_t tasks, void (*body)(int64_t, void*), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [=](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) body(task, context);
  });
}

}  // namespace unireplknet
