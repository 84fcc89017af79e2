// How a call is divided into tasks.
#pragma once

#include "../../cpu/vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// Rows of the strips into which `rows` are cut for at least kTasks tasks in all, but such that a
// strip is worth starting a task (row_work multiply-adds of vectors each) and is no smaller than
// least nor, if that is more than one tile, larger than most.
inline int64_t strip_rows(int64_t rows, int64_t tasks, int64_t row_work, int64_t least,
                          int64_t most, int64_t tile_rows) {
  constexpr int64_t kTasks = 32, kTaskWork = 60000;
  const int64_t wanted = ceil_div(rows, ceil_div(kTasks, tasks));
  const int64_t worth = maximum(least, ceil_div(kTaskWork, row_work));
  const int64_t strip = maximum(tile_rows, minimum(most, maximum(wanted, worth)));
  const int64_t even = ceil_div(rows, ceil_div(rows, strip));
  return minimum(rows, ceil_div(even, tile_rows) * tile_rows);
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
