// Which instruction set the CPU kernels use.
//
// The compiled sets are named by the macros UNIREPLKNET_HAVE_AVX2, _AVX512, _AVX512_BF16
// (unireplknet_ops/build.py). The best one that the processor has is used;
// UNIREPLKNET_CPU_ISA=portable|avx2|avx512|avx512_bf16 lowers it. Python asks with
// torch.ops.unireplknet.cpu_isa().
#pragma once

namespace unireplknet {

// Each has what those before it have.
enum class InstructionSet { kPortable, kAvx2, kAvx512, kAvx512Bf16 };

// Throws std::runtime_error if UNIREPLKNET_CPU_ISA names none that runs here.
InstructionSet active_instruction_set();

}  // namespace unireplknet
