// What the host functions and the CPU kernels of an op hand each other.
#pragma once

#include <cstdint>

namespace unireplknet {

enum class DType { kFloat32, kFloat64, kFloat16, kBFloat16 };

struct Strides {  // in elements
  int64_t n, c, h, w;
};

struct ConstMap {
  const void* data;
  Strides strides;
};

struct Map {
  void* data;
  Strides strides;
};

// Calls body(task, context) once for each task in [0, tasks), in any order, on torch's threads.
using ParallelFor = void (*)(int64_t tasks, void (*body)(int64_t task, void* context),
                             void* context);

}  // namespace unireplknet
