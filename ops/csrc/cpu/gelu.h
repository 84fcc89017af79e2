// GELU in its exact form, x Phi(x), and its derivative, Phi(x) + x phi(x), with Phi the normal
// distribution function and phi its density, as polynomials.
//
// Phi and the derivative are each 1/2 + x P(t) for |x| <= R, with t = 2 (x / R)^2 - 1; P is the
// Chebyshev interpolant of that quotient in t, in powers of t, which lies in [-1, 1] so that
// little is lost to rounding. Beyond R both are taken as at R.
#pragma once

#include "vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// |error| <= 2e-7 max(|x|, 1) of GELU, less than that of 1 + erf in float32, which cancels in the
// tail, and <= 3e-7 of the derivative.
struct ErrorOfFloat32 {
  struct Distribution {
    static constexpr float kRange = 5.25f;
    static constexpr float kCoefficients[] = {
        0.00028844972f, -0.0006808799f, 0.0005071353f, -0.0009666484f, 0.0030923488f,
        -0.0055320323f, 0.008292908f,   -0.0127297f,   0.018578397f,   -0.025053889f,
        0.03202548f,    -0.039762087f,  0.049646117f,  -0.067126855f,  0.13465935f};
  };
  struct Derivative {
    static constexpr float kRange = 5.75f;
    static constexpr float kCoefficients[] = {
        -0.0029840404f, 0.0064869775f, -0.00067793456f, 4.9982697e-05f, -0.019754115f, 0.033228144f,
        -0.031866416f,  0.041956924f,  -0.060862564f,   0.0699069f,     -0.070162036f, 0.06663284f,
        -0.059585117f,  0.05172032f,   -0.0472903f,     0.04936663f,    -0.062281482f, 0.12307183f};
  };
};

// |error| <= 2e-6 max(|x|, 1) and <= 4e-6, for results that are rounded to 8 bits.
struct ErrorOfBFloat16 {
  struct Distribution {
    static constexpr float kRange = 4.5f;
    static constexpr float kCoefficients[] = {
        0.0009806926f, -0.002340016f, 0.0027162775f, -0.0052515483f, 0.011439227f, -0.019020941f,
        0.028283931f,  -0.040109213f, 0.05470119f,   -0.07719386f,   0.15690494f};
  };
  struct Derivative {
    static constexpr float kRange = 5.25f;
    static constexpr float kCoefficients[] = {
        -0.012427747f, 0.025050009f, -0.006709208f, 0.007100069f, -0.05374265f,
        0.07606544f,   -0.06828923f, 0.07288858f,   -0.0784145f,  0.071175404f,
        -0.061814114f, 0.059215426f, -0.06992542f,  0.13506585f};
  };
};

// 1/2 + x P(t), x being clamped to the polynomial's range.
template <class Polynomial>
UNIREPLKNET_INLINE Float half_plus_odd(Float x) {
  constexpr float kRange = Polynomial::kRange;
  constexpr int kCount = sizeof(Polynomial::kCoefficients) / sizeof(float);
  const Float clamped = x.at_least(Float::broadcast(-kRange)).at_most(Float::broadcast(kRange));
  Float t = Float::broadcast(-1);
  t.multiply_add(clamped.times(clamped), Float::broadcast(2 / (kRange * kRange)));
  Float sum = Float::broadcast(Polynomial::kCoefficients[0]);
#pragma GCC unroll 18
  for (int i = 1; i < kCount; ++i) {
    Float next = Float::broadcast(Polynomial::kCoefficients[i]);
    next.multiply_add(sum, t);
    sum = next;
  }
  Float result = Float::broadcast(0.5f);
  result.multiply_add(sum, clamped);
  return result;
}

template <class Error>
UNIREPLKNET_INLINE Float gelu(Float x) {
  // From below, x times what is left of Phi would grow again.
  const Float low = x.at_least(Float::broadcast(-Error::Distribution::kRange));
  return low.times(half_plus_odd<typename Error::Distribution>(low));
}

// NaN where x is minus infinity, whose GELU is 0 times that, else a zero: for the sums over a map,
// which carry it on to all that depends on them.
UNIREPLKNET_INLINE Float nan_of_minus_infinity(Float x) {
  return x.at_most(Float::zero()).times(Float::zero());
}

template <class Error>
UNIREPLKNET_INLINE Float gelu_derivative(Float x) {
  return half_plus_odd<typename Error::Derivative>(x);
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
