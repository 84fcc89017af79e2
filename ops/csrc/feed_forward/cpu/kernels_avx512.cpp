// The CPU kernels with AVX-512 F, BW, VL and DQ.
#define UNIREPLKNET_ISA avx512
#define UNIREPLKNET_VECTOR_BITS 512
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "forward.h"
#include "kernels.h"

namespace unireplknet {

void feed_forward_avx512(const FeedForward& problem, ParallelFor parallel_for) {
  avx512::feed_forward(problem, parallel_for);
}

}  // namespace unireplknet
