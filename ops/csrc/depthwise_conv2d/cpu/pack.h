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
//
//   Scratch                thread_local memory for packed blocks
#pragma once

#include <cstdlib>
#include <new>

#include "kernels.h"
#include "vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// The element type that a DType stores.
template <DType>
struct Storage;
template <>
struct Storage<DType::kFloat32> {
  using Type = float;
};
template <>
struct Storage<DType::kFloat64> {
  using Type = double;
};
template <>
struct Storage<DType::kFloat16> {
  using Type = Half;
};
template <>
struct Storage<DType::kBFloat16> {
  using Type = BFloat16;
};

template <class V>
UNIREPLKNET_INLINE void fill_zero(typename V::Scalar* packed, int64_t vectors) {
  for (int64_t i = 0; i < vectors; ++i) V::zero().store(packed + i * V::kLanes);
}

// Past the end of a map a prefetch does nothing, so that its address is not checked.
// kLevel is the compiler's: 3 for the first cache, 2 for the second.
template <bool kForWriting, int kLevel = 3>
UNIREPLKNET_INLINE void prefetch(uintptr_t address) {
  __builtin_prefetch(reinterpret_cast<const void*>(address), kForWriting, kLevel);
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

inline void* allocate_aligned(int64_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, kAlignment, static_cast<size_t>(bytes)) != 0) throw std::bad_alloc();
  return data;
}

// Memory for the packed blocks of one task, aligned to kAlignment. Each thread keeps one piece of
// up to kKept bytes between tasks; what is larger is freed at the end of the task. At most one
// Scratch may live on a thread at a time.
class Scratch {
 public:
  explicit Scratch(int64_t bytes) {
    bytes = ceil_div(bytes, kAlignment) * kAlignment;
    Kept& kept = kept_here();
    if (bytes > kKept) {
      data_ = own_ = allocate_aligned(bytes);
      return;
    }
    if (bytes > kept.bytes) {
      std::free(kept.data);
      kept.data = nullptr;
      kept.bytes = 0;
      kept.data = allocate_aligned(bytes);
      kept.bytes = bytes;
    }
    data_ = kept.data;
  }
  ~Scratch() { std::free(own_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // The next count scalars of type S, aligned; the sizes taken, each rounded up to kAlignment
  // bytes, must not exceed what was asked for.
  template <class S>
  S* take(int64_t count) {
    S* taken = reinterpret_cast<S*>(static_cast<char*>(data_) + used_);
    used_ += rounded(count * static_cast<int64_t>(sizeof(S)));
    return taken;
  }
  static int64_t rounded(int64_t bytes) { return ceil_div(bytes, kAlignment) * kAlignment; }

 private:
  static constexpr int64_t kKept = 8 << 20;
  struct Kept {
    void* data = nullptr;
    int64_t bytes = 0;
    ~Kept() { std::free(data); }
  };
  static Kept& kept_here() {
    static thread_local Kept kept;
    return kept;
  }

  void* data_ = nullptr;
  void* own_ = nullptr;
  int64_t used_ = 0;
};

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
