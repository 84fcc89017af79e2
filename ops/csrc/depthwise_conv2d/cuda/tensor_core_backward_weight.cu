// Compiles the kernels of the filter's gradient, see tensor_core_backward_weight.cuh.
#include "tensor_core_backward_weight.cuh"

namespace unireplknet::cuda {

size_t tensor_core_backward_weight_workspace(const Shape& shape, Variants variants) {
  using namespace tensor_core;
  return backward_weight_workspace(shape,
                                   remembered_plan(shape, variants, choose_backward_weight_plan));
}

template cudaError_t tensor_core_backward_weight(const Shape&, const __half*, const __half*,
                                                 __half*, float*, cudaStream_t, Variants);
template cudaError_t tensor_core_backward_weight(const Shape&, const __nv_bfloat16*,
                                                 const __nv_bfloat16*, __nv_bfloat16*, float*,
                                                 cudaStream_t, Variants);

}  // namespace unireplknet::cuda
