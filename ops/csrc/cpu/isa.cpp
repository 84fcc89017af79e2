#include "isa.h"

#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace unireplknet {
namespace {

struct Isa {
  const char* name;
  bool runs_here;
  InstructionSet set;
};

const std::vector<Isa>& compiled_isas() {  // best first
  static const std::vector<Isa> isas = {
#ifdef UNIREPLKNET_HAVE_AVX512_BF16
      {"avx512_bf16",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bf16"),
       InstructionSet::kAvx512Bf16},
#endif
#ifdef UNIREPLKNET_HAVE_AVX512
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"),
       InstructionSet::kAvx512},
#endif
#ifdef UNIREPLKNET_HAVE_AVX2
      // Every x86 processor with AVX2 has F16C, which __builtin_cpu_supports of older compilers
      // does not know.
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
       InstructionSet::kAvx2},
#endif
      {"portable", true, InstructionSet::kPortable},
  };
  return isas;
}

const Isa& choose_isa() {
  const char* wanted = std::getenv("UNIREPLKNET_CPU_ISA");
  std::string names;
  for (const Isa& isa : compiled_isas()) {
    if (!isa.runs_here) continue;
    if (!wanted || !*wanted || isa.name == std::string(wanted)) return isa;
    names += (names.empty() ? "" : ", ") + std::string(isa.name);
  }
  throw std::runtime_error("UNIREPLKNET_CPU_ISA=" + std::string(wanted) +
                           " cannot run here: choose one of " + names);
}

const Isa& active_isa() {
  static const Isa& isa = choose_isa();
  return isa;
}

std::string cpu_isa() { return active_isa().name; }

}  // namespace

InstructionSet active_instruction_set() { return active_isa().set; }

}  // namespace unireplknet

STABLE_TORCH_LIBRARY_FRAGMENT(unireplknet, m) { m.def("cpu_isa() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(unireplknet, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&unireplknet::cpu_isa));
}
