// Compiles the forward kernels, see tensor_core_forward.cuh.
#include "tensor_core_forward.cuh"

namespace unireplknet::cuda {

template cudaError_t tensor_core_forward(const Shape&, const __half*, const __half*, const __half*,
                                         bool, __half*, cudaStream_t, Variants);
template cudaError_t tensor_core_forward(const Shape&, const __nv_bfloat16*, const __nv_bfloat16*,
                                         const __nv_bfloat16*, bool, __nv_bfloat16*, cudaStream_t,
                                         Variants);

}  // namespace unireplknet::cuda
