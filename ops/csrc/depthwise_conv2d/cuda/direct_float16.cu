// Compiles the direct kernels for float16.
#include "direct_launch.cuh"

namespace unireplknet::cuda {

template cudaError_t direct_forward(const Shape&, const __half*, const __half*, const __half*, bool,
                                    __half*, cudaStream_t);
template size_t direct_backward_weight_workspace<__half>(const Shape&, Variants);
template cudaError_t direct_backward_weight(const Shape&, const __half*, const __half*, __half*,
                                            float*, cudaStream_t, Variants);

}  // namespace unireplknet::cuda
