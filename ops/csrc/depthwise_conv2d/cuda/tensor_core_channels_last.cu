// Compiles the kernels for channels_last, see tensor_core_channels_last.cuh.
#include "tensor_core_channels_last.cuh"

namespace unireplknet::cuda {

bool tensor_core_channels_last_supported(const Shape& shape, const void* x, const void* out) {
  using namespace tensor_core;
  const auto address = reinterpret_cast<uintptr_t>(x) | reinterpret_cast<uintptr_t>(out);
  return tensor_core_supported(shape) && chunks_of(shape.kernel_width) <= kMostVariedChunks &&
         shape.channels % kGroupChannels == 0 && address % 16 == 0 &&
         remembered_plan(shape, {}, choose_channels_last_plan).images != 0;
}

template cudaError_t tensor_core_channels_last(const Shape&, const __half*, const __half*,
                                               const __half*, bool, __half*, cudaStream_t);
template cudaError_t tensor_core_channels_last(const Shape&, const __nv_bfloat16*,
                                               const __nv_bfloat16*, const __nv_bfloat16*, bool,
                                               __nv_bfloat16*, cudaStream_t);

}  // namespace unireplknet::cuda
