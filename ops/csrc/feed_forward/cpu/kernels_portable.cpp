// The CPU kernels for any machine.
#define UNIREPLKNET_ISA portable
#define UNIREPLKNET_VECTOR_BITS 128
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "forward.h"
#include "kernels.h"

namespace unireplknet {

void feed_forward_portable(const FeedForward& problem, ParallelFor parallel_for) {
  portable::feed_forward(problem, parallel_for);
}

}  // namespace unireplknet
