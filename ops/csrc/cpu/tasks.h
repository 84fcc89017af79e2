// What the kernels hand to torch's threads.
#pragma once

#include "types.h"
#include "vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// Splits total into parts that differ by at most one; part i begins at begin(i).
struct Split {
  int64_t total, parts;
  int64_t begin(int64_t i) const { return total * i / parts; }
};

// (run->*body)(task) once for each task in [0, tasks).
template <class Run>
void run_tasks(ParallelFor parallel_for, int64_t tasks, Run* run, void (Run::*body)(int64_t)) {
  struct Call {
    Run* run;
    void (Run::*body)(int64_t);
  } call{run, body};
  parallel_for(
      tasks,
      [](int64_t task, void* context) {
        const Call& call = *static_cast<Call*>(context);
        (call.run->*call.body)(task);
      },
      &call);
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
