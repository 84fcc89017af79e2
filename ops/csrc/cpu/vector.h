// Vectors of one instruction set.
//
// Every translation unit kernels_<isa>.cpp sets these macros and includes the kernel headers once:
//   UNIREPLKNET_ISA            a name; all code below lives in the namespace unireplknet::<name>,
//   so
//                              that no function compiled for one instruction set can be merged by
//                              the linker with the same function of another
//   UNIREPLKNET_VECTOR_BITS    512 (AVX-512 F, BW, VL, DQ), 256 (AVX2, FMA, F16C) or 128 (any)
//   UNIREPLKNET_BFLOAT16_PAIRS 1 with AVX-512-BF16, else 0
// For the same reason the kernel headers use no inline function of the standard library.
//
// A vector type V has
//   Scalar, kLanes             the accumulator type, float or double, and the number of lanes
//   zero(), broadcast(s)
//   load(p), store(p)          p points to kLanes scalars, aligned to kAlignment
//   load_partial(p, count)     the first count lanes from p (no alignment, nothing read past them),
//   store_partial(p, count)      the others zero; 1 <= count <= kLanes. p has any element type that
//                                V converts: Scalar, and for float also Half and BFloat16
//   load_unaligned(p), store_unaligned(p)   the same with count = kLanes
//   multiply_add(x, w)         *this += x * w
//   plus(x), times(x)          the sum, the product
//   at_least(x), at_most(x)    the larger, the smaller of the two; NaN where *this is NaN
//                              (only these four of Float alone)
//   transpose(rows)            of a kLanes x kLanes tile held in an array of kLanes vectors
//
// struct Isa names them: Float, Double; kRegisters, how many vector registers there are; and
// kLoads<T>, whether Float loads elements T at about the price of its own, rather than one by one.
#pragma once

#include <cstdint>
#include <cstring>

#if UNIREPLKNET_VECTOR_BITS >= 256
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own header trips over its _mm512_undefined_ps() (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#endif

#define UNIREPLKNET_INLINE inline __attribute__((always_inline))

namespace unireplknet {
namespace UNIREPLKNET_ISA {

constexpr int64_t kAlignment = 64;

// Storage types of 16 bits.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

constexpr int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class To, class From>
UNIREPLKNET_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

// One element to and from the accumulator type; rounding to nearest, ties to even.
UNIREPLKNET_INLINE float to_scalar(float value) { return value; }
UNIREPLKNET_INLINE double to_scalar(double value) { return value; }
UNIREPLKNET_INLINE float to_scalar(BFloat16 value) {
  return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}
UNIREPLKNET_INLINE float to_scalar(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t magnitude = value.bits & 0x7fff;
  if (magnitude >= 0x7c00) return bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // Exact for subnormals too: the product with 2^112 moves the exponent's bias from 15 to 127.
  const float scaled = bit_cast<float>(magnitude << 13) * bit_cast<float>(uint32_t{239} << 23);
  return bit_cast<float>(bit_cast<uint32_t>(scaled) | sign);
}

UNIREPLKNET_INLINE void from_scalar(float value, float* out) { *out = value; }
UNIREPLKNET_INLINE void from_scalar(double value, double* out) { *out = value; }
UNIREPLKNET_INLINE void from_scalar(float value, BFloat16* out) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  out->bits = static_cast<uint16_t>(is_nan ? (bits >> 16) | 0x40 : rounded);
}
UNIREPLKNET_INLINE void from_scalar(float value, Half* out) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  uint32_t result;
  if (magnitude > 0x7f800000) {
    result = 0x7e00;
  } else if (magnitude >= 0x477ff000) {  // rounds to 65536 or more
    result = 0x7c00;
  } else if (magnitude <
             0x38800000) {  // below 2^-14: the sum with 0.5 rounds to multiples of 2^-24
    result = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  } else {
    result = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  }
  out->bits = static_cast<uint16_t>(sign | result);
}

#if UNIREPLKNET_VECTOR_BITS == 512

struct Float {
  using Scalar = float;
  static constexpr int kLanes = 16;
  __m512 v;

  static UNIREPLKNET_INLINE Float zero() { return {_mm512_setzero_ps()}; }
  static UNIREPLKNET_INLINE Float broadcast(float s) { return {_mm512_set1_ps(s)}; }
  static UNIREPLKNET_INLINE Float load(const float* p) { return {_mm512_load_ps(p)}; }
  UNIREPLKNET_INLINE void store(float* p) const { _mm512_store_ps(p, v); }
  UNIREPLKNET_INLINE void multiply_add(Float x, Float w) { v = _mm512_fmadd_ps(x.v, w.v, v); }
  UNIREPLKNET_INLINE Float plus(Float x) const { return {_mm512_add_ps(v, x.v)}; }
  UNIREPLKNET_INLINE Float times(Float x) const { return {_mm512_mul_ps(v, x.v)}; }
  UNIREPLKNET_INLINE Float at_least(Float x) const { return {_mm512_max_ps(x.v, v)}; }
  UNIREPLKNET_INLINE Float at_most(Float x) const { return {_mm512_min_ps(x.v, v)}; }

  static UNIREPLKNET_INLINE Float load_unaligned(const float* p) { return {_mm512_loadu_ps(p)}; }
  static UNIREPLKNET_INLINE Float load_unaligned(const Half* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static UNIREPLKNET_INLINE Float load_unaligned(const BFloat16* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static UNIREPLKNET_INLINE Float load_partial(const float* p, int count) {
    return {_mm512_maskz_loadu_ps(first(count), p)};
  }
  static UNIREPLKNET_INLINE Float load_partial(const Half* p, int count) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p))};
  }
  static UNIREPLKNET_INLINE Float load_partial(const BFloat16* p, int count) {
    return widen(_mm256_maskz_loadu_epi16(first(count), p));
  }
  UNIREPLKNET_INLINE void store_unaligned(float* p) const { _mm512_storeu_ps(p, v); }
  UNIREPLKNET_INLINE void store_unaligned(Half* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_half());
  }
  UNIREPLKNET_INLINE void store_unaligned(BFloat16* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bfloat16());
  }
  UNIREPLKNET_INLINE void store_partial(float* p, int count) const {
    _mm512_mask_storeu_ps(p, first(count), v);
  }
  UNIREPLKNET_INLINE void store_partial(Half* p, int count) const {
    _mm256_mask_storeu_epi16(p, first(count), to_half());
  }
  UNIREPLKNET_INLINE void store_partial(BFloat16* p, int count) const {
    _mm256_mask_storeu_epi16(p, first(count), to_bfloat16());
  }

  static UNIREPLKNET_INLINE void transpose(Float (&r)[16]) {
    __m512 a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
      a[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
      a[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) {
      b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
      b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
      b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
      b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; ++i) {
      a[i] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
      a[i + 4] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
      a[i + 8] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
      a[i + 12] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; ++i) {
      r[i].v = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
      r[i + 8].v = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
      r[i + 4].v = _mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0x88);
      r[i + 12].v = _mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0xdd);
    }
  }

 private:
  static UNIREPLKNET_INLINE __mmask16 first(int count) {
    return static_cast<__mmask16>((1u << count) - 1);
  }
  static UNIREPLKNET_INLINE Float widen(__m256i bits) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  UNIREPLKNET_INLINE __m256i to_half() const {
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // By integers: VCVTNEPS2BF16 flushes subnormals.
  UNIREPLKNET_INLINE __m256i to_bfloat16() const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __m512i kept =
        _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
  }
};

struct Double {
  using Scalar = double;
  static constexpr int kLanes = 8;
  __m512d v;

  static UNIREPLKNET_INLINE Double zero() { return {_mm512_setzero_pd()}; }
  static UNIREPLKNET_INLINE Double broadcast(double s) { return {_mm512_set1_pd(s)}; }
  static UNIREPLKNET_INLINE Double load(const double* p) { return {_mm512_load_pd(p)}; }
  UNIREPLKNET_INLINE void store(double* p) const { _mm512_store_pd(p, v); }
  UNIREPLKNET_INLINE void multiply_add(Double x, Double w) { v = _mm512_fmadd_pd(x.v, w.v, v); }
  static UNIREPLKNET_INLINE Double load_unaligned(const double* p) { return {_mm512_loadu_pd(p)}; }
  static UNIREPLKNET_INLINE Double load_partial(const double* p, int count) {
    return {_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p)};
  }
  UNIREPLKNET_INLINE void store_unaligned(double* p) const { _mm512_storeu_pd(p, v); }
  UNIREPLKNET_INLINE void store_partial(double* p, int count) const {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1), v);
  }

  static UNIREPLKNET_INLINE void transpose(Double (&r)[8]) {
    __m512d a[8], b[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 2) {
      a[i] = _mm512_unpacklo_pd(r[i].v, r[i + 1].v);
      a[i + 1] = _mm512_unpackhi_pd(r[i].v, r[i + 1].v);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2; ++i) {
      b[i] = _mm512_shuffle_f64x2(a[i], a[i + 2], 0x88);
      b[i + 2] = _mm512_shuffle_f64x2(a[i], a[i + 2], 0xdd);
      b[i + 4] = _mm512_shuffle_f64x2(a[i + 4], a[i + 6], 0x88);
      b[i + 6] = _mm512_shuffle_f64x2(a[i + 4], a[i + 6], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 4; ++i) {
      r[i].v = _mm512_shuffle_f64x2(b[i], b[i + 4], 0x88);
      r[i + 4].v = _mm512_shuffle_f64x2(b[i], b[i + 4], 0xdd);
    }
  }
};

#elif UNIREPLKNET_VECTOR_BITS == 256

struct Float {
  using Scalar = float;
  static constexpr int kLanes = 8;
  __m256 v;

  static UNIREPLKNET_INLINE Float zero() { return {_mm256_setzero_ps()}; }
  static UNIREPLKNET_INLINE Float broadcast(float s) { return {_mm256_set1_ps(s)}; }
  static UNIREPLKNET_INLINE Float load(const float* p) { return {_mm256_load_ps(p)}; }
  UNIREPLKNET_INLINE void store(float* p) const { _mm256_store_ps(p, v); }
  UNIREPLKNET_INLINE void multiply_add(Float x, Float w) { v = _mm256_fmadd_ps(x.v, w.v, v); }
  UNIREPLKNET_INLINE Float plus(Float x) const { return {_mm256_add_ps(v, x.v)}; }
  UNIREPLKNET_INLINE Float times(Float x) const { return {_mm256_mul_ps(v, x.v)}; }
  UNIREPLKNET_INLINE Float at_least(Float x) const { return {_mm256_max_ps(x.v, v)}; }
  UNIREPLKNET_INLINE Float at_most(Float x) const { return {_mm256_min_ps(x.v, v)}; }

  static UNIREPLKNET_INLINE Float load_unaligned(const float* p) { return {_mm256_loadu_ps(p)}; }
  static UNIREPLKNET_INLINE Float load_unaligned(const Half* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static UNIREPLKNET_INLINE Float load_unaligned(const BFloat16* p) {
    return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static UNIREPLKNET_INLINE Float load_partial(const float* p, int count) {
    return {_mm256_maskload_ps(p, first(count))};
  }
  template <class T>
  static UNIREPLKNET_INLINE Float load_partial(const T* p, int count) {
    T all[kLanes] = {};
    for (int i = 0; i < count; ++i) all[i] = p[i];
    return load_unaligned(all);
  }
  UNIREPLKNET_INLINE void store_unaligned(float* p) const { _mm256_storeu_ps(p, v); }
  UNIREPLKNET_INLINE void store_unaligned(Half* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  UNIREPLKNET_INLINE void store_unaligned(BFloat16* p) const {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i kept = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1)));
  }
  UNIREPLKNET_INLINE void store_partial(float* p, int count) const {
    _mm256_maskstore_ps(p, first(count), v);
  }
  template <class T>
  UNIREPLKNET_INLINE void store_partial(T* p, int count) const {
    T all[kLanes];
    store_unaligned(all);
    for (int i = 0; i < count; ++i) p[i] = all[i];
  }

  static UNIREPLKNET_INLINE void transpose(Float (&r)[8]) {
    __m256 a[8], b[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 2) {
      a[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
      a[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 4) {
      b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
      b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
      b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
      b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 4; ++i) {
      r[i].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
      r[i + 4].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
  }

 private:
  static UNIREPLKNET_INLINE __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static UNIREPLKNET_INLINE Float widen(__m128i bits) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
};

struct Double {
  using Scalar = double;
  static constexpr int kLanes = 4;
  __m256d v;

  static UNIREPLKNET_INLINE Double zero() { return {_mm256_setzero_pd()}; }
  static UNIREPLKNET_INLINE Double broadcast(double s) { return {_mm256_set1_pd(s)}; }
  static UNIREPLKNET_INLINE Double load(const double* p) { return {_mm256_load_pd(p)}; }
  UNIREPLKNET_INLINE void store(double* p) const { _mm256_store_pd(p, v); }
  UNIREPLKNET_INLINE void multiply_add(Double x, Double w) { v = _mm256_fmadd_pd(x.v, w.v, v); }
  static UNIREPLKNET_INLINE Double load_unaligned(const double* p) { return {_mm256_loadu_pd(p)}; }
  static UNIREPLKNET_INLINE Double load_partial(const double* p, int count) {
    return {_mm256_maskload_pd(p, first(count))};
  }
  UNIREPLKNET_INLINE void store_unaligned(double* p) const { _mm256_storeu_pd(p, v); }
  UNIREPLKNET_INLINE void store_partial(double* p, int count) const {
    _mm256_maskstore_pd(p, first(count), v);
  }

  static UNIREPLKNET_INLINE void transpose(Double (&r)[4]) {
    const __m256d a = _mm256_unpacklo_pd(r[0].v, r[1].v);
    const __m256d b = _mm256_unpackhi_pd(r[0].v, r[1].v);
    const __m256d c = _mm256_unpacklo_pd(r[2].v, r[3].v);
    const __m256d d = _mm256_unpackhi_pd(r[2].v, r[3].v);
    r[0].v = _mm256_permute2f128_pd(a, c, 0x20);
    r[1].v = _mm256_permute2f128_pd(b, d, 0x20);
    r[2].v = _mm256_permute2f128_pd(a, c, 0x31);
    r[3].v = _mm256_permute2f128_pd(b, d, 0x31);
  }

 private:
  static UNIREPLKNET_INLINE __m256i first(int count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
  }
};

#else

// The compiler's own vectors of 128 bits: SSE2, NEON, or whatever the machine has.
template <class S>
struct Vector {
  using Scalar = S;
  static constexpr int kLanes = 16 / sizeof(S);
  typedef S Lanes __attribute__((vector_size(16), may_alias));
  Lanes v;

  static UNIREPLKNET_INLINE Vector zero() { return {Lanes{}}; }
  static UNIREPLKNET_INLINE Vector broadcast(S s) { return {Lanes{} + s}; }
  static UNIREPLKNET_INLINE Vector load(const S* p) {
    return {*reinterpret_cast<const Lanes*>(__builtin_assume_aligned(p, 16))};
  }
  UNIREPLKNET_INLINE void store(S* p) const {
    *reinterpret_cast<Lanes*>(__builtin_assume_aligned(p, 16)) = v;
  }
  UNIREPLKNET_INLINE void multiply_add(Vector x, Vector w) { v += x.v * w.v; }
  UNIREPLKNET_INLINE Vector plus(Vector x) const { return {v + x.v}; }
  UNIREPLKNET_INLINE Vector times(Vector x) const { return {v * x.v}; }
  UNIREPLKNET_INLINE Vector at_least(Vector x) const { return {x.v > v ? x.v : v}; }
  UNIREPLKNET_INLINE Vector at_most(Vector x) const { return {x.v < v ? x.v : v}; }
  static UNIREPLKNET_INLINE Vector load_unaligned(const S* p) {
    Vector vector;
    std::memcpy(&vector.v, p, sizeof(Lanes));
    return vector;
  }
  template <class T>
  static UNIREPLKNET_INLINE Vector load_unaligned(const T* p) {
    Vector vector;
    for (int i = 0; i < kLanes; ++i) vector.v[i] = to_scalar(p[i]);
    return vector;
  }
  template <class T>
  static UNIREPLKNET_INLINE Vector load_partial(const T* p, int count) {
    Vector vector = zero();
    for (int i = 0; i < count; ++i) vector.v[i] = to_scalar(p[i]);
    return vector;
  }
  UNIREPLKNET_INLINE void store_unaligned(S* p) const { std::memcpy(p, &v, sizeof(Lanes)); }
  template <class T>
  UNIREPLKNET_INLINE void store_unaligned(T* p) const {
    for (int i = 0; i < kLanes; ++i) from_scalar(v[i], p + i);
  }
  template <class T>
  UNIREPLKNET_INLINE void store_partial(T* p, int count) const {
    for (int i = 0; i < count; ++i) from_scalar(v[i], p + i);
  }
  static UNIREPLKNET_INLINE void transpose(Vector (&r)[kLanes]) {
    if constexpr (kLanes == 4) {
      const Lanes a = r[0].v, b = r[1].v, c = r[2].v, d = r[3].v;
      for (int i = 0; i < kLanes; ++i) r[i].v = Lanes{a[i], b[i], c[i], d[i]};
    } else {
      const Lanes a = r[0].v, b = r[1].v;
      for (int i = 0; i < kLanes; ++i) r[i].v = Lanes{a[i], b[i]};
    }
  }
};
using Float = Vector<float>;
using Double = Vector<double>;

#endif

struct Isa {
  using Float = UNIREPLKNET_ISA::Float;
  using Double = UNIREPLKNET_ISA::Double;
  template <class T>
  static constexpr bool kLoads = sizeof(T) == sizeof(float) || UNIREPLKNET_VECTOR_BITS >= 256;
#if UNIREPLKNET_VECTOR_BITS == 512 || defined(__aarch64__)
  static constexpr int kRegisters = 32;
#else
  static constexpr int kRegisters = 16;
#endif
};

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
