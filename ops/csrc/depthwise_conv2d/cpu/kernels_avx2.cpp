// The CPU kernels with AVX2, FMA and F16C.
#define UNIREPLKNET_ISA avx2
#define UNIREPLKNET_VECTOR_BITS 256
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "backward_weight.h"
#include "forward.h"
#include "kernels.h"

namespace unireplknet {

const Kernels& kernels_avx2() {
  static const Kernels kernels{avx2::forward<avx2::Isa>, avx2::backward_weight<avx2::Isa>};
  return kernels;
}

}  // namespace unireplknet
