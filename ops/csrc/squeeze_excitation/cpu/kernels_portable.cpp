// The CPU kernels for any machine.
#define UNIREPLKNET_ISA portable
#define UNIREPLKNET_VECTOR_BITS 128
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "kernels.h"
#include "passes.h"

namespace unireplknet {

void squeeze_excitation_portable(const SqueezeExcitation& problem, ParallelFor parallel_for) {
  portable::squeeze_excitation(problem, parallel_for);
}

}  // namespace unireplknet
