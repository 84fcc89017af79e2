// The CPU kernels with AVX-512 and its bfloat16 dot products.
#define UNIREPLKNET_ISA avx512_bf16
#define UNIREPLKNET_VECTOR_BITS 512
#define UNIREPLKNET_BFLOAT16_PAIRS 1

#include "backward_weight.h"
#include "forward.h"
#include "kernels.h"

namespace unireplknet {

const Kernels& kernels_avx512_bf16() {
  static const Kernels kernels{avx512_bf16::forward<avx512_bf16::Isa>,
                               avx512_bf16::backward_weight<avx512_bf16::Isa>};
  return kernels;
}

}  // namespace unireplknet
