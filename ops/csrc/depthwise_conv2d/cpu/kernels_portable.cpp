// The CPU kernels for any machine.
#define UNIREPLKNET_ISA portable
#define UNIREPLKNET_VECTOR_BITS 128
#define UNIREPLKNET_BFLOAT16_PAIRS 0

#include "backward_weight.h"
#include "forward.h"
#include "kernels.h"

namespace unireplknet {

const Kernels& kernels_portable() {
  static const Kernels kernels{portable::forward<portable::Isa>,
                               portable::backward_weight<portable::Isa>};
  return kernels;
}

}  // namespace unireplknet
