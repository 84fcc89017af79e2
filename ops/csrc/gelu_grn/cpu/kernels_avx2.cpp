// The CPU kernels with AVX2, FMA and F16C.
#define UNIREPLKNET_ISA avx2
#define UNIREPLKNET_VECTOR_BITS 256
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "kernels.h"
#include "passes.h"

namespace unireplknet {

const GeluGrnKernels kGeluGrnAvx2 = {avx2::gelu_grn, avx2::gelu_grn_backward};

}  // namespace unireplknet
