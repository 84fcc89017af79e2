// The CPU kernels with AVX-512 and its bfloat16 dot products.
#define UNIREPLKNET_ISA avx512_bf16
#define UNIREPLKNET_VECTOR_BITS 512
#define UNIREPLKNET_BFLOAT16_PAIRS 1

#include "forward.h"
#include "kernels.h"

namespace unireplknet {

void feed_forward_avx512_bf16(const FeedForward& problem, ParallelFor parallel_for) {
  avx512_bf16::feed_forward(problem, parallel_for);
}

}  // namespace unireplknet
