// The CPU kernels with AVX2, FMA and F16C.
#define UNIREPLKNET_ISA avx2
#define UNIREPLKNET_VECTOR_BITS 256
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "kernels.h"
#include "passes.h"

namespace unireplknet {

void squeeze_excitation_avx2(const SqueezeExcitation& problem, ParallelFor parallel_for) {
  avx2::squeeze_excitation(problem, parallel_for);
}

}  // namespace unireplknet
