// The CPU kernels with AVX2, FMA and F16C.
#define UNIREPLKNET_ISA avx2
#define UNIREPLKNET_VECTOR_BITS 256
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "forward.h"
#include "kernels.h"

namespace unireplknet {

void feed_forward_avx2(const FeedForward& problem, ParallelFor parallel_for) {
  avx2::feed_forward(problem, parallel_for);
}

}  // namespace unireplknet
