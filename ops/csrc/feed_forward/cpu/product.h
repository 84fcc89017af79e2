// Matrix products in the registers: a panel of rows times one or two vectors of columns.
//
// Operands tells how rows and weights are held:
//   Element       what is stored; kDepth of them along the inner dimension are one step
//   kBlock        elements of a row that stand together: L = kLanes steps
//   store         kLanes elements of a row
// A panel of rows is stored as [block][row][kBlock], kPanelRows rows a block whether used or not; a
// vector of columns as [step][lane][kDepth]. Inner dimensions are filled up with zeros to whole
// blocks. A product is left as [vector][row][lane] of float, kPanelRows rows a vector, which is the
// form of pack.h.
#pragma once

#include "../../cpu/gelu.h"
#include "../../cpu/pack.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

constexpr int kLanes = Float::kLanes;
// As many accumulators as the registers hold beside the operands of one step.
constexpr int kPanelRows = Isa::kRegisters == 32 ? 14 : 6;
constexpr int kTileVectors = 2;
constexpr int kTileSize = kTileVectors * kPanelRows * kLanes;

struct FloatElements {
  using Element = float;
  static constexpr int kDepth = 1, kBlock = kLanes;
  using GeluError = ErrorOfFloat32;
  static UNIREPLKNET_INLINE void store(Float x, float* to) { x.store(to); }
  static UNIREPLKNET_INLINE Float broadcast(const float* x) { return Float::broadcast(*x); }
  static UNIREPLKNET_INLINE Float load(const float* w) { return Float::load(w); }
  static UNIREPLKNET_INLINE void multiply_add(Float& sum, Float x, Float w) {
    sum.multiply_add(x, w);
  }
};

#if UNIREPLKNET_BFLOAT16_PAIRS
struct BFloat16Pairs {
  using Element = BFloat16;
  static constexpr int kDepth = 2, kBlock = 2 * kLanes;
  using GeluError = ErrorOfBFloat16;
  static UNIREPLKNET_INLINE void store(Float x, BFloat16* to) {  // subnormals become zero
    _mm256_store_si256(reinterpret_cast<__m256i*>(to),
                       reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.v)));
  }
  static UNIREPLKNET_INLINE Float broadcast(const BFloat16* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof(pair));
    return {_mm512_castsi512_ps(_mm512_set1_epi32(pair))};
  }
  static UNIREPLKNET_INLINE Float load(const BFloat16* w) {
    return Float::load(reinterpret_cast<const float*>(w));
  }
  static UNIREPLKNET_INLINE void multiply_add(Float& sum, Float x, Float w) {
    sum.v =
        _mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(x.v), reinterpret_cast<__m512bh>(w.v));
  }
};
#endif

// product = rows (kRows x blocks * kBlock) * columns; pitch: elements between vectors of columns.
template <class Operands, int kRows, int kVectors>
void multiply(const typename Operands::Element* rows, const typename Operands::Element* columns,
              int64_t pitch, int64_t blocks, float* product) {
  Float sums[kVectors][kRows];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[v][r] = Float::zero();
  for (int64_t block = 0; block < blocks; ++block) {
#pragma GCC unroll 4
    for (int step = 0; step < kLanes; ++step) {
      Float w[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) w[v] = Operands::load(columns + v * pitch);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Float x = Operands::broadcast(rows + r * Operands::kBlock);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) Operands::multiply_add(sums[v][r], x, w[v]);
      }
      rows += Operands::kDepth;
      columns += kLanes * Operands::kDepth;
    }
    rows += (kPanelRows - 1) * Operands::kBlock;
  }
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[v][r].store(product + (v * kPanelRows + r) * kLanes);
}

template <class Operands>
using Multiply = void (*)(const typename Operands::Element*, const typename Operands::Element*,
                          int64_t, int64_t, float*);

// The product for 1 <= count <= kPanelRows rows and 1 or 2 vectors of columns.
template <class Operands>
Multiply<Operands> choose_multiply(int64_t count, int64_t vectors) {
#define UNIREPLKNET_ROWS(r)                            \
  {                                                    \
    multiply<Operands, r, 1>, multiply<Operands, r, 2> \
  }
  static constexpr Multiply<Operands> kMultiply[kPanelRows][kTileVectors] = {
      UNIREPLKNET_ROWS(1),  UNIREPLKNET_ROWS(2),  UNIREPLKNET_ROWS(3),  UNIREPLKNET_ROWS(4),
      UNIREPLKNET_ROWS(5),  UNIREPLKNET_ROWS(6),
#if UNIREPLKNET_VECTOR_BITS == 512 || defined(__aarch64__)
      UNIREPLKNET_ROWS(7),  UNIREPLKNET_ROWS(8),  UNIREPLKNET_ROWS(9),  UNIREPLKNET_ROWS(10),
      UNIREPLKNET_ROWS(11), UNIREPLKNET_ROWS(12), UNIREPLKNET_ROWS(13), UNIREPLKNET_ROWS(14),
#endif
  };
#undef UNIREPLKNET_ROWS
  return kMultiply[count - 1][vectors - 1];
}

// Lanes first_column to first_column + kLanes of the columns of weight^T, weight (columns, inner)
// contiguous, into packed [step][lane][kDepth]; what is missing is zero. scratch holds
// blocks * kBlock vectors.
template <class Operands, class T>
void pack_columns(const T* weight, int64_t columns, int64_t inner, int64_t first_column,
                  int64_t blocks, float* scratch, typename Operands::Element* packed) {
  const int64_t all = blocks * Operands::kBlock;
  float* singles = scratch;
  if constexpr (Operands::kDepth == 1) singles = packed;
  const int count = static_cast<int>(minimum(kLanes, columns - first_column));
#if UNIREPLKNET_BFLOAT16_PAIRS
  if constexpr (Operands::kDepth == 2) {
    if (inner % 2 == 0 && count > 0) {  // a pair of a row is moved as one number of 32 bits
      float* pairs = reinterpret_cast<float*>(packed);
      pack<Float>(reinterpret_cast<const float*>(weight + first_column * inner),
                  Strides{0, inner / 2, 0, 1}, count, 1, inner / 2, nullptr, pairs, inner / 2);
      return fill_zero<Float>(pairs + inner / 2 * kLanes, (all - inner) / 2);
    }
  }
#endif
  if (count <= 0) {
    fill_zero<Float>(singles, all);
  } else {
    pack<Float>(weight + first_column * inner, Strides{0, inner, 0, 1}, count, 1, inner, nullptr,
                singles, inner);
    fill_zero<Float>(singles + inner * kLanes, all - inner);
  }
#if UNIREPLKNET_BFLOAT16_PAIRS
  if constexpr (Operands::kDepth == 2) {
    for (int64_t i = 0; i < all; i += 2) {  // T is BFloat16: the lower halves are zero
      const __m512i low = _mm512_srli_epi32(_mm512_load_si512(singles + i * kLanes), 16);
      const __m512i high = _mm512_load_si512(singles + (i + 1) * kLanes);
      _mm512_store_si512(packed + i * kLanes, _mm512_or_si512(low, high));
    }
  }
#endif
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
