// Memory of the kernels, aligned for their vectors, and prefetching.
#pragma once

#include <cstdlib>
#include <new>

#include "vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// Past the end of a map a prefetch does nothing, so that its address is not checked.
// kLevel is the compiler's: 3 for the first cache, 2 for the second.
template <bool kForWriting, int kLevel = 3>
UNIREPLKNET_INLINE void prefetch(uintptr_t address) {
  __builtin_prefetch(reinterpret_cast<const void*>(address), kForWriting, kLevel);
}

inline void* allocate_aligned(int64_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, kAlignment, static_cast<size_t>(bytes)) != 0) throw std::bad_alloc();
  return data;
}

// Pieces of memory that a thread keeps for its next calls: the system hands out large ones page by
// page, anew each time, which cost 6 % of a classifier's inference. The oldest go first.
class KeptPieces {
 public:
  struct Piece {
    void* data = nullptr;
    int64_t bytes = 0;
  };

  KeptPieces() = default;
  ~KeptPieces() {
    while (count_ > 0) std::free(remove(0).data);
  }
  KeptPieces(const KeptPieces&) = delete;
  KeptPieces& operator=(const KeptPieces&) = delete;

  static KeptPieces& here() {
    static thread_local KeptPieces pieces;
    return pieces;
  }

  // The smallest piece that holds bytes, a new one where none does without much waste.
  Piece take(int64_t bytes) {
    int best = -1;
    for (int i = 0; i < count_; ++i)
      if (pieces_[i].bytes >= bytes && pieces_[i].bytes <= 2 * bytes &&
          (best < 0 || pieces_[i].bytes < pieces_[best].bytes))
        best = i;
    return best < 0 ? Piece{allocate_aligned(bytes), bytes} : remove(best);
  }

  void give(Piece piece) {
    if (piece.bytes < kSmallest || piece.bytes > kMost) return std::free(piece.data);
    while (count_ == kCount || total_ + piece.bytes > kMost) std::free(remove(0).data);
    pieces_[count_++] = piece;
    total_ += piece.bytes;
  }

 private:
  static constexpr int kCount = 16;
  static constexpr int64_t kSmallest = 64 << 10;  // below, the allocator keeps them
  static constexpr int64_t kMost = 32 << 20;      // of a thread

  Piece remove(int i) {
    const Piece piece = pieces_[i];
    for (--count_; i < count_; ++i) pieces_[i] = pieces_[i + 1];
    total_ -= piece.bytes;
    return piece;
  }

  Piece pieces_[kCount];  // from the oldest on
  int count_ = 0;
  int64_t total_ = 0;  // bytes
};

// Memory that lives as long as one call.
template <class S>
class Buffer {
 public:
  explicit Buffer(int64_t count)
      : piece_(KeptPieces::here().take(count * static_cast<int64_t>(sizeof(S)))) {}
  ~Buffer() { KeptPieces::here().give(piece_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  S* get() const { return static_cast<S*>(piece_.data); }

 private:
  const KeptPieces::Piece piece_;
};

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
