// The CPU kernels for any machine.
#define UNIREPLKNET_ISA portable
#define UNIREPLKNET_VECTOR_BITS 128
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "kernels.h"
#include "passes.h"

namespace unireplknet {

const GeluGrnKernels kGeluGrnPortable = {portable::gelu_grn, portable::gelu_grn_backward};

}  // namespace unireplknet
