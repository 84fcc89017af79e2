// Chooses among the compiled direct kernels. Included by the translation units that instantiate
// them, one a dtype and direction, so that they compile in parallel.
#pragma once

#include "column.cuh"
#include "direct.cuh"
#include "direct_backward_weight.cuh"
#include "direct_forward.cuh"

namespace unireplknet::cuda {

template <class T>
cudaError_t direct_forward(const Shape& shape, const T* x, const T* weight, const T* bias,
                           bool flip, T* out, cudaStream_t stream) {
  if (shape.dilation > 1) {
    const ColumnPlan plan = plan_column_forward(shape, flip);
    if (plan.blocks > 0x7fffffff || shape.planes() > 0x7fffffff)
      return cudaErrorInvalidConfiguration;
    return with_column_size(shape, [&](auto size) {
      return launch(column_forward_kernel<T, decltype(size)::value>,
                    dim3(static_cast<unsigned>(plan.blocks)), dim3(kColumnThreads), 0, stream, x,
                    weight, bias, out, plan);
    });
  }
#define UNIREPLKNET_WIDTH(width) \
  case width:                    \
    return launch_direct_forward<T, width>(shape, x, weight, bias, flip, out, stream)
  switch (shape.kernel_width) {
    UNIREPLKNET_WIDTH(3);
    UNIREPLKNET_WIDTH(5);
    UNIREPLKNET_WIDTH(7);
  }
  // In 16 bits the tensor cores take the larger filters; what they do not take runs with the width
  // as a variable.
  if constexpr (std::is_same_v<T, float>) {
    switch (shape.kernel_width) {
      UNIREPLKNET_WIDTH(9);
      UNIREPLKNET_WIDTH(11);
      UNIREPLKNET_WIDTH(13);
      UNIREPLKNET_WIDTH(15);
      UNIREPLKNET_WIDTH(17);
      UNIREPLKNET_WIDTH(19);
      UNIREPLKNET_WIDTH(21);
      UNIREPLKNET_WIDTH(23);
      UNIREPLKNET_WIDTH(25);
      UNIREPLKNET_WIDTH(27);
      UNIREPLKNET_WIDTH(29);
      UNIREPLKNET_WIDTH(31);
    }
  }
#undef UNIREPLKNET_WIDTH
  return launch_direct_forward<T, 0>(shape, x, weight, bias, flip, out, stream);
}

template <class T>
size_t direct_backward_weight_workspace(const Shape& shape, Variants variants) {
  const size_t bytes = sizeof(float) * shape.channels * shape.kernel_height * shape.kernel_width;
  if (shape.dilation > 1) return bytes * plan_column_backward_weight(shape).parts;
  return bytes * with_backward_weight_kernel<T>(
                     shape.kernel_width, variants, [&](auto, int rows, int columns, int stages) {
                       return plan_backward_weight(shape, rows, columns, stages).parts;
                     });
}

template <class T>
cudaError_t direct_backward_weight(const Shape& shape, const T* grad_output, const T* x,
                                   T* grad_weight, float* workspace, cudaStream_t stream,
                                   Variants variants) {
  int parts = 0;
  cudaError_t error = cudaErrorInvalidConfiguration;
  if (shape.dilation > 1) {
    const ColumnPlan plan = plan_column_backward_weight(shape);
    parts = plan.parts;
    if (plan.blocks > 0x7fffffff) return error;
    error = with_column_size(shape, [&](auto size) {
      constexpr int kSize = decltype(size)::value;
      return launch(column_backward_weight_kernel<T, kSize>,
                    dim3(static_cast<unsigned>(plan.blocks)), dim3(kColumnThreads),
                    kSize * kColumnThreads * sizeof(float), stream, grad_output, x, workspace,
                    plan);
    });
  } else {
    error = with_backward_weight_kernel<T>(
        shape.kernel_width, variants, [&](auto kernel, int rows, int columns, int stages) {
          const BackwardWeightPlan plan =
              plan_backward_weight(shape, rows, columns, stages, grad_output, x, sizeof(T));
          parts = plan.parts;
          if (plan.blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
          return launch(kernel, dim3(static_cast<unsigned>(plan.blocks)), dim3(plan.threads),
                        plan.shared_bytes, stream, grad_output, x, workspace, plan);
        });
  }
  if (error != cudaSuccess) return error;
  const int64_t filters = shape.channels * shape.kernel_height * shape.kernel_width;
  return launch_add_partials(workspace, grad_weight, filters, parts, stream);
}

}  // namespace unireplknet::cuda
