// Compiles the direct forward kernels for float32.
#include "direct_launch.cuh"

namespace unireplknet::cuda {

template cudaError_t direct_forward(const Shape&, const float*, const float*, const float*, bool,
                                    float*, cudaStream_t);

}  // namespace unireplknet::cuda
