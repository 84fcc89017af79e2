// The CPU kernels with AVX-512 F, BW, VL and DQ.
#define UNIREPLKNET_ISA avx512
#define UNIREPLKNET_VECTOR_BITS 512
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "backward_weight.h"
#include "forward.h"
#include "kernels.h"

namespace unireplknet {

const Kernels& kernels_avx512() {
  static const Kernels kernels{avx512::forward<avx512::Isa>, avx512::backward_weight<avx512::Isa>};
  return kernels;
}

}  // namespace unireplknet
