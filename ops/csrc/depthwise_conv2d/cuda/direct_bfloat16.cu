// Compiles the direct kernels for bfloat16.
#include "direct_launch.cuh"

namespace unireplknet::cuda {

template cudaError_t direct_forward(const Shape&, const __nv_bfloat16*, const __nv_bfloat16*,
                                    const __nv_bfloat16*, bool, __nv_bfloat16*, cudaStream_t);
template size_t direct_backward_weight_workspace<__nv_bfloat16>(const Shape&, Variants);
template cudaError_t direct_backward_weight(const Shape&, const __nv_bfloat16*,
                                            const __nv_bfloat16*, __nv_bfloat16*, float*,
                                            cudaStream_t, Variants);

}  // namespace unireplknet::cuda
