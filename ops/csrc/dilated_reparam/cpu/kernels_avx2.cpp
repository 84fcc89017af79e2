// The CPU kernels with AVX2, FMA and F16C.
#define UNIREPLKNET_ISA avx2
#define UNIREPLKNET_VECTOR_BITS 256
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "channel_block.h"
#include "kernels.h"

namespace unireplknet {

const DilatedReparamKernels& dilated_reparam_avx2() {
  static const DilatedReparamKernels kernels{avx2::reparam_forward, avx2::reparam_backward};
  return kernels;
}

}  // namespace unireplknet
