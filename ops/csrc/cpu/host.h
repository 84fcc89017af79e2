// What host functions of CPU ops share: from torch's tensors to the types of the kernels.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

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

inline void check_shape(const char* op, const char* name, const Tensor& tensor,
                        const std::vector<int64_t>& shape) {
  bool fits = tensor.dim() == static_cast<int64_t>(shape.size());
  std::string wanted;
  for (size_t i = 0; i < shape.size(); ++i) {
    fits = fits && tensor.size(static_cast<int64_t>(i)) == shape[i];
    wanted += (i ? ", " : "") + std::to_string(shape[i]);
  }
  check(fits, op, ": ", name, " must have the shape (", wanted, "), got ", to_text(tensor));
}

// A dense tensor of float32 after a check of its shape; none for none.
inline std::optional<Tensor> float32_tensor(const char* op, const char* name,
                                            const std::optional<Tensor>& tensor,
                                            const std::vector<int64_t>& shape) {
  if (!tensor) return std::nullopt;
  check_shape(op, name, *tensor, shape);
  check(tensor->scalar_type() == ScalarType::Float, op, ": ", name, " has dtype ",
        torch::headeronly::toString(tensor->scalar_type()), ", not float32");
  return dense(*tensor);
}

template <class T>
void widen(const Tensor& from, float* to) {
  const T* numbers = static_cast<const T*>(from.const_data_ptr());
  for (int64_t i = 0; i < from.numel(); ++i) to[i] = static_cast<float>(numbers[i]);
}

// As float32_tensor, also from a tensor of the 16-bit dtype that x has.
inline std::optional<Tensor> widened_tensor(const char* op, const char* name,
                                            const std::optional<Tensor>& tensor,
                                            const std::vector<int64_t>& shape, const Tensor& x) {
  if (!tensor || tensor->scalar_type() != x.scalar_type() || x.scalar_type() == ScalarType::Float)
    return float32_tensor(op, name, tensor, shape);
  check_shape(op, name, *tensor, shape);
  const Tensor from = dense(*tensor);
  Tensor to = torch::stable::empty(shape, ScalarType::Float, std::nullopt, x.device(), std::nullopt,
                                   torch::headeronly::MemoryFormat::Contiguous);
  float* numbers = static_cast<float*>(to.mutable_data_ptr());
  if (x.scalar_type() == ScalarType::Half) {
    widen<torch::headeronly::Half>(from, numbers);
  } else {
    widen<torch::headeronly::BFloat16>(from, numbers);
  }
  return to;
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
