// The CPU kernels with AVX-512 F, BW, VL and DQ.
#define UNIREPLKNET_ISA avx512
#define UNIREPLKNET_VECTOR_BITS 512
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "kernels.h"
#include "passes.h"

namespace unireplknet {

void squeeze_excitation_avx512(const SqueezeExcitation& problem, ParallelFor parallel_for) {
  avx512::squeeze_excitation(problem, parallel_for);
}

}  // namespace unireplknet
