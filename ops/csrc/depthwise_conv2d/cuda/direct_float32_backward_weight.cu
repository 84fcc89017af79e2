// Compiles the direct kernels of the filter's gradient for float32.
#include "direct_launch.cuh"

namespace unireplknet::cuda {

template size_t direct_backward_weight_workspace<float>(const Shape&, Variants);
template cudaError_t direct_backward_weight(const Shape&, const float*, const float*, float*,
                                            float*, cudaStream_t, Variants);

}  // namespace unireplknet::cuda
