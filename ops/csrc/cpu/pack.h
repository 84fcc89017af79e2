// Maps into and out of the layout in which the kernels compute: [row][column][lane], the lanes
// being kLanes neighbouring channels of one image.
//
//   pack(source, strides, channels, rows, columns, position, packed, pitch)
//   unpack(packed, pitch, position, channels, rows, columns, out, strides)
//
// source or out points to the element at the first channel, first row and first column of what is
// to be moved; strides counts its elements (any strides; strides.n is not used). 1 <= channels <=
// kLanes are moved: lanes above are filled with zeros by pack and left alone by unpack. packed is
// aligned to kAlignment and row r, column w is the vector at packed + (r * pitch + p) * kLanes with
// p = w, or p = position[w] if position is given; pitch counts vectors. No padding is written (see
// fill_zero). float16 and bfloat16 are converted to and from float32 on the way.
#pragma once

#include "memory.h"
#include "types.h"
#include "vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

template <class V>
UNIREPLKNET_INLINE void fill_zero(typename V::Scalar* packed, int64_t vectors) {
  for (int64_t i = 0; i < vectors; ++i) V::zero().store(packed + i * V::kLanes);
}

template <class V, class T>
void pack(const T* source, Strides strides, int channels, int64_t rows, int64_t columns,
          const int32_t* position, typename V::Scalar* packed, int64_t pitch) {
  constexpr int L = V::kLanes;
  if (!position && strides.h == columns * strides.w && pitch == columns) {  // one long row
    columns *= rows;
    rows = 1;
  }
  if (strides.c == 1) {
    for (int64_t r = 0; r < rows; ++r) {
      const T* row = source + r * strides.h;
      auto* to = packed + r * pitch * L;
      if (channels == L) {
        for (int64_t w = 0; w < columns; ++w) {
          prefetch<false>(reinterpret_cast<uintptr_t>(row) + (w + 64) * strides.w * sizeof(T));
          V::load_unaligned(row + w * strides.w).store(to + (position ? position[w] : w) * L);
        }
      } else {
        for (int64_t w = 0; w < columns; ++w)
          V::load_partial(row + w * strides.w, channels)
              .store(to + (position ? position[w] : w) * L);
      }
    }
    return;
  }
  if (strides.w == 1) {
    for (int64_t r = 0; r < rows; ++r) {
      const T* row = source + r * strides.h;
      auto* to = packed + r * pitch * L;
      for (int64_t w0 = 0; w0 < columns; w0 += L) {
        const int count = static_cast<int>(minimum(L, columns - w0));
        V tile[L];
        if (channels == L && count == L) {
#pragma GCC unroll 16
          for (int l = 0; l < L; ++l)
            prefetch<false>(reinterpret_cast<uintptr_t>(row + l * strides.c + w0) + 128);
#pragma GCC unroll 16
          for (int l = 0; l < L; ++l) tile[l] = V::load_unaligned(row + l * strides.c + w0);
        } else if (channels == L) {
#pragma GCC unroll 16
          for (int l = 0; l < L; ++l) tile[l] = V::load_partial(row + l * strides.c + w0, count);
        } else {
#pragma GCC unroll 16
          for (int l = 0; l < L; ++l)
            tile[l] = l < channels ? V::load_partial(row + l * strides.c + w0, count) : V::zero();
        }
        V::transpose(tile);
        if (count == L && !position) {
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) tile[i].store(to + (w0 + i) * L);
        } else {
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i)
            if (i < count) tile[i].store(to + (position ? position[w0 + i] : w0 + i) * L);
        }
      }
    }
    return;
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t w = 0; w < columns; ++w) {
      const T* from = source + r * strides.h + w * strides.w;
      auto* to = packed + (r * pitch + (position ? position[w] : w)) * L;
      for (int l = 0; l < channels; ++l) to[l] = to_scalar(from[l * strides.c]);
      for (int l = channels; l < L; ++l) to[l] = 0;
    }
}

template <class V, class T>
void unpack(const typename V::Scalar* packed, int64_t pitch, const int32_t* position, int channels,
            int64_t rows, int64_t columns, T* out, Strides strides) {
  constexpr int L = V::kLanes;
  if (!position && strides.h == columns * strides.w && pitch == columns) {
    columns *= rows;
    rows = 1;
  }
  if (strides.c == 1) {
    for (int64_t r = 0; r < rows; ++r) {
      const auto* from = packed + r * pitch * L;
      T* row = out + r * strides.h;
      if (channels == L) {
        for (int64_t w = 0; w < columns; ++w)
          V::load(from + (position ? position[w] : w) * L).store_unaligned(row + w * strides.w);
      } else {
        for (int64_t w = 0; w < columns; ++w)
          V::load(from + (position ? position[w] : w) * L)
              .store_partial(row + w * strides.w, channels);
      }
    }
    return;
  }
  if (strides.w == 1) {
    for (int64_t r = 0; r < rows; ++r) {
      const auto* from = packed + r * pitch * L;
      T* row = out + r * strides.h;
      for (int64_t w0 = 0; w0 < columns; w0 += L) {
        const int count = static_cast<int>(minimum(L, columns - w0));
        V tile[L];
        if (count == L && !position) {
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) tile[i] = V::load(from + (w0 + i) * L);
        } else {
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i)
            tile[i] =
                i < count ? V::load(from + (position ? position[w0 + i] : w0 + i) * L) : V::zero();
        }
        V::transpose(tile);
        if (channels == L && count == L) {
#pragma GCC unroll 16
          for (int l = 0; l < L; ++l) tile[l].store_unaligned(row + l * strides.c + w0);
        } else if (channels == L) {
#pragma GCC unroll 16
          for (int l = 0; l < L; ++l) tile[l].store_partial(row + l * strides.c + w0, count);
        } else {
#pragma GCC unroll 16
          for (int l = 0; l < L; ++l)
            if (l < channels) tile[l].store_partial(row + l * strides.c + w0, count);
        }
      }
    }
    return;
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t w = 0; w < columns; ++w) {
      const auto* from = packed + (r * pitch + (position ? position[w] : w)) * L;
      T* to = out + r * strides.h + w * strides.w;
      for (int l = 0; l < channels; ++l) from_scalar(from[l], to + l * strides.c);
    }
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
