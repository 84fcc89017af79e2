// GELU in its exact form, x Phi(x), with the normal distribution function as a polynomial.
//
// For |x| <= R, Phi(x) = 1/2 + x P(t) with t = 2 (x / R)^2 - 1; P is the Chebyshev interpolant of
// (Phi(x) - 1/2) / x in t, in powers of t, which lies in [-1, 1] so that little is lost to
// rounding. Beyond R, Phi is taken as Phi(R).
#pragma once

#include "../../cpu/vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// |error| <= 2e-7 max(|x|, 1), less than that of 1 + erf in float32, which cancels in the tail.
struct ErrorOfFloat32 {
  static constexpr float kRange = 5.25f;
  static constexpr float kCoefficients[] = {
      0.00028844972f, -0.0006808799f, 0.0005071353f, -0.0009666484f, 0.0030923488f,
      -0.0055320323f, 0.008292908f,   -0.0127297f,   0.018578397f,   -0.025053889f,
      0.03202548f,    -0.039762087f,  0.049646117f,  -0.067126855f,  0.13465935f};
};

// |error| <= 2e-6 max(|x|, 1), for results that are rounded to 8 bits.
struct ErrorOfBFloat16 {
  static constexpr float kRange = 4.5f;
  static constexpr float kCoefficients[] = {
      0.0009806926f, -0.002340016f, 0.0027162775f, -0.0052515483f, 0.011439227f, -0.019020941f,
      0.028283931f,  -0.040109213f, 0.05470119f,   -0.07719386f,   0.15690494f};
};

template <class Error>
UNIREPLKNET_INLINE Float gelu(Float x) {
  constexpr float kRange = Error::kRange;
  constexpr int kCount = sizeof(Error::kCoefficients) / sizeof(float);
  const Float low = x.at_least(Float::broadcast(-kRange));
  const Float clamped = low.at_most(Float::broadcast(kRange));
  Float t = Float::broadcast(-1);
  t.multiply_add(clamped.times(clamped), Float::broadcast(2 / (kRange * kRange)));
  Float sum = Float::broadcast(Error::kCoefficients[0]);
#pragma GCC unroll 16
  for (int i = 1; i < kCount; ++i) {
    Float next = Float::broadcast(Error::kCoefficients[i]);
    next.multiply_add(sum, t);
    sum = next;
  }
  Float phi = Float::broadcast(0.5f);
  phi.multiply_add(sum, clamped);
  return low.times(phi);  // from below, x times what is left of Phi would grow again
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
