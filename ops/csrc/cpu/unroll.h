// Loops whose index is a compile-time constant, of one instruction set (vector.h).
#pragma once

#include <utility>

#include "vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

template <int N>
struct Constant {
  static constexpr int value = N;
};

template <class F, int... I>
UNIREPLKNET_INLINE void unroll_over(std::integer_sequence<int, I...>, F&& f) {
  (f(Constant<I>{}), ...);
}

// f(Constant<0>), ..., f(Constant<N - 1>).
template <int N, class F>
UNIREPLKNET_INLINE void unroll(F&& f) {
  unroll_over(std::make_integer_sequence<int, N>{}, f);
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
