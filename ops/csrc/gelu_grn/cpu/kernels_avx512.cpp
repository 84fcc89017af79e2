// The CPU kernels with AVX-512 F, BW, VL and DQ.
#define UNIREPLKNET_ISA avx512
#define UNIREPLKNET_VECTOR_BITS 512
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "kernels.h"
#include "passes.h"

namespace unireplknet {

const GeluGrnKernels kGeluGrnAvx512 = {avx512::gelu_grn, avx512::gelu_grn_backward};

}  // namespace unireplknet
