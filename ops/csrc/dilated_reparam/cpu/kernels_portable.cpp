// The CPU kernels for any machine.
#define UNIREPLKNET_ISA portable
#define UNIREPLKNET_VECTOR_BITS 128
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "channel_block.h"
#include "kernels.h"

namespace unireplknet {

const DilatedReparamKernels& dilated_reparam_portable() {
  static const DilatedReparamKernels kernels{portable::reparam_forward, portable::reparam_backward};
  return kernels;
}

}  // namespace unireplknet
