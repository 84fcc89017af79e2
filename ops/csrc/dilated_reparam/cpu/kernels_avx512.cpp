// The CPU kernels with AVX-512 F, BW, VL and DQ.
#define UNIREPLKNET_ISA avx512
#define UNIREPLKNET_VECTOR_BITS 512
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "channel_block.h"
#include "kernels.h"

namespace unireplknet {

const DilatedReparamKernels& dilated_reparam_avx512() {
  static const DilatedReparamKernels kernels{avx512::reparam_forward, avx512::reparam_backward};
  return kernels;
}

}  // namespace unireplknet
