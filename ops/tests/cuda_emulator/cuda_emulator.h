// Runs CUDA kernels on the host, so that they can be tested where there is no GPU.
//
// A kernel header that includes cuda/ptx.cuh of an op compiles with nvcc for the device and,
// through this file, with g++ for the host. Blocks run one after another; every CUDA thread of a
// block is a fiber with its own stack. A fiber runs alone until it reaches a barrier or a warp-wide
// instruction, so threads are as far apart as the programming model allows: what works here only
// because a barrier is missing on purpose does not work. Stricter than the hardware on purpose:
//   * __syncthreads must be reached by all threads of the block, at the same source line; none may
//   have returned before.
//   * A warp-wide instruction must be reached by all lanes of its mask, all at the same source
//   line.
//   * cp.async moves the data only when the group is waited for.
//   * Dynamic shared memory is one heap block of exactly the requested size, filled with NaN for
//   every block of threads,
//     so AddressSanitizer sees an overrun and arithmetic sees an element that nobody wrote.
//   * Vector types carry their alignment, so -fsanitize=alignment sees a misaligned 16-byte access.
// The environment variable CUDA_EMULATOR_ORDER=descending lets the last thread run first; a race
// that one order hides shows in the other. With CUDA_EMULATOR_DRY_RUN set a launch only checks its
// configuration. Fragment layouts of ldmatrix and mma follow the PTX ISA, section "Warp-level
// matrix instructions".
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __grid_constant__

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_emulator {

// The smallest limit of dynamic shared memory among the architectures that the project compiles for
// (8.6, 8.9, 12.0).
constexpr size_t kSharedLimit = 99 * 1024;
constexpr size_t kStackBytes = 128 * 1024;
constexpr int kMaxThreads = 1024;

[[noreturn]] inline void fail(const std::string& message) {
  std::fprintf(stderr, "cuda_emulator: block (%u, %u, %u), thread (%u, %u, %u): %s\n", blockIdx.x,
               blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, message.c_str());
  std::fflush(stderr);
  std::abort();
}

// A stack and the state of whoever runs on it. The scheduler is the one fiber without a stack of
// its own.
#if defined(__x86_64__)
struct Context {
  void* stack_pointer = nullptr;
};
extern "C" void cuda_emulator_switch(void** save, void* load);
asm(R"(
.text
.weak cuda_emulator_switch
.type cuda_emulator_switch, @function
cuda_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulator_switch, .-cuda_emulator_switch
)");
inline void switch_context(Context& from, Context& to) {
  cuda_emulator_switch(&from.stack_pointer, to.stack_pointer);
}
inline void prepare_context(Context& context, char* stack, void (*entry)()) {
  // Seen from `entry` as after a call: the stack pointer is 8 below a multiple of 16.
  const uintptr_t aligned = reinterpret_cast<uintptr_t>(stack + kStackBytes - 32) & ~uintptr_t{15};
  auto* top = reinterpret_cast<void**>(aligned + 8);
  *top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  top -= 6;
  std::memset(static_cast<void*>(top), 0, 6 * sizeof(void*));
  context.stack_pointer = top;
}
#else
using Context = ucontext_t;
inline void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
inline void prepare_context(Context& context, char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

enum class State { kReady, kAtBarrier, kAtCollective, kFinished };

struct Copy {
  void* target;
  const void* source;
  unsigned bytes, source_bytes;
};

struct Thread {
  Context context;
  std::unique_ptr<char[]> stack;
  uint3 index;
  State state = State::kFinished;
  int line = 0;
  std::vector<Copy> open_group;
  std::vector<std::vector<Copy>> groups;
};

// One warp-wide instruction that some lanes have reached and others have not.
struct Pending {
  uint32_t mask = 0, arrived = 0;
  void (*operation)(void* const*, uint32_t) = nullptr;
  int line = 0;
  void* arguments[32] = {};
};

struct Machine {
  Context scheduler;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<std::vector<Pending>> pending;  // one list a warp
  std::unique_ptr<unsigned char[]> shared;
  size_t shared_bytes = 0;
  std::function<void()> kernel;
  int thread_count = 0, at_barrier = 0, finished = 0, current = -1, barrier_line = 0;
};

inline Machine& machine() {
  static Machine instance;
  return instance;
}

inline void* dynamic_shared() { return machine().shared.get(); }

inline bool in_dynamic_shared(const void* pointer, size_t bytes) {
  const auto* first = static_cast<const unsigned char*>(pointer);
  const Machine& m = machine();
  return first >= m.shared.get() && first + bytes <= m.shared.get() + m.shared_bytes;
}

inline void enter(Thread& thread) {
  Machine& m = machine();
  threadIdx = thread.index;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, thread.stack.get(), kStackBytes);
#endif
  switch_context(m.scheduler, thread.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

inline void leave() {
  Machine& m = machine();
  Thread& thread = *m.threads[m.current];
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, m.scheduler_stack, m.scheduler_stack_size);
#endif
  switch_context(thread.context, m.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, &m.scheduler_stack, &m.scheduler_stack_size);
#endif
}

inline void fiber_main() {
  Machine& m = machine();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_stack, &m.scheduler_stack_size);
#endif
  for (;;) {
    m.kernel();
    Thread& thread = *m.threads[m.current];
    thread.state = State::kFinished;
    thread.open_group.clear();
    thread.groups.clear();
    ++m.finished;
    leave();
  }
}

inline void barrier(int line) {
  Machine& m = machine();
  Thread& thread = *m.threads[m.current];
  if (m.finished > 0) {
    fail("__syncthreads at line " + std::to_string(line) +
         ", but a thread of the block has returned");
  }
  if (m.at_barrier == 0) m.barrier_line = line;
  if (m.barrier_line != line) {
    fail("__syncthreads at line " + std::to_string(line) + " while others wait at line " +
         std::to_string(m.barrier_line));
  }
  if (++m.at_barrier == m.thread_count) {
    m.at_barrier = 0;
    for (int t = 0; t < m.thread_count; ++t) m.threads[t]->state = State::kReady;
    return;
  }
  thread.state = State::kAtBarrier;
  thread.line = line;
  leave();
}

inline void warp_collective(void (*operation)(void* const*, uint32_t), void* arguments,
                            uint32_t mask, int line) {
  Machine& m = machine();
  const int lane = m.current % 32, warp = m.current / 32;
  const int lanes = std::min(32, m.thread_count - warp * 32);
  if (lanes < 32) mask &= (1u << lanes) - 1;
  if (!(mask >> lane & 1)) fail("a lane outside its own mask, line " + std::to_string(line));
  auto& list = m.pending[warp];
  Pending* entry = nullptr;
  for (Pending& candidate : list) {
    if (candidate.mask & mask) entry = &candidate;
  }
  if (!entry) {
    list.emplace_back();
    entry = &list.back();
    entry->mask = mask;
    entry->operation = operation;
    entry->line = line;
  }
  if (entry->mask != mask || entry->operation != operation || entry->line != line) {
    fail("divergent warp-wide instructions at lines " + std::to_string(entry->line) + " and " +
         std::to_string(line));
  }
  entry->arguments[lane] = arguments;
  entry->arrived |= 1u << lane;
  if (entry->arrived == entry->mask) {
    entry->operation(entry->arguments, entry->mask);
    for (int other = 0; other < lanes; ++other) {
      if (entry->mask >> other & 1) m.threads[warp * 32 + other]->state = State::kReady;
    }
    list.erase(list.begin() + (entry - list.data()));
    return;
  }
  m.threads[m.current]->state = State::kAtCollective;
  m.threads[m.current]->line = line;
  leave();
}

inline void run_block(bool descending) {
  Machine& m = machine();
  m.at_barrier = m.finished = 0;
  std::memset(m.shared.get(), 0xff, m.shared_bytes);
  for (int t = 0; t < m.thread_count; ++t) m.threads[t]->state = State::kReady;
  const int warps = (m.thread_count + 31) / 32;
  while (m.finished < m.thread_count) {
    bool any = false;
    for (int i = 0; i < warps; ++i) {
      const int warp = descending ? warps - 1 - i : i;
      const int first = warp * 32, last = std::min(first + 32, m.thread_count) - 1;
      for (bool progress = true; progress;) {
        progress = false;
        for (int j = first; j <= last; ++j) {
          const int t = descending ? last - (j - first) : j;
          if (m.threads[t]->state != State::kReady) continue;
          progress = any = true;
          m.current = t;
          enter(*m.threads[t]);
        }
      }
    }
    if (!any) {
      for (int t = 0; t < m.thread_count; ++t) {
        if (m.threads[t]->state == State::kFinished) continue;
        threadIdx = m.threads[t]->index;
        fail("deadlock: waits at line " + std::to_string(m.threads[t]->line) +
             " for threads that never come");
      }
    }
  }
}

// Runs the kernel over the whole grid before returning.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   Arguments... arguments) {
  Machine& m = machine();
  const size_t threads = size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  if (shared_bytes > kSharedLimit) return cudaErrorInvalidValue;
  if (std::getenv("CUDA_EMULATOR_DRY_RUN")) return cudaSuccess;
  m.thread_count = static_cast<int>(threads);
  m.shared_bytes = shared_bytes;
  m.shared.reset(new unsigned char[shared_bytes]);
  m.pending.assign((threads + 31) / 32, {});
  m.kernel = [=] { kernel(arguments...); };
  while (m.threads.size() < threads) {
    auto thread = std::make_unique<Thread>();
    thread->stack.reset(new char[kStackBytes]);
    prepare_context(thread->context, thread->stack.get(), fiber_main);
    m.threads.push_back(std::move(thread));
  }
  for (unsigned t = 0; t < threads; ++t) {
    m.threads[t]->index = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
  }
  const char* order = std::getenv("CUDA_EMULATOR_ORDER");
  const bool descending = order && std::string(order) == "descending";
  blockDim = block;
  gridDim = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block(descending);
      }
    }
  }
  return cudaSuccess;
}

// Storage formats of 16 bits. Rounding is to nearest, ties to even.
inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float bits_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, exponent = half >> 10 & 31,
                 fraction = half & 1023;
  if (exponent == 31) return bits_float(sign | 0x7f800000u | fraction << 13);
  const float magnitude = exponent ? std::ldexp(1024.f + fraction, int(exponent) - 25)
                                   : std::ldexp(float(fraction), -24);
  return sign ? -magnitude : magnitude;
}
inline uint16_t float_to_half(float value) {
  const uint32_t bits = float_bits(value);
  const uint16_t sign = bits >> 16 & 0x8000u;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7fffu;
  if (magnitude >= 65520.f) return sign | 0x7c00u;
  if (magnitude < std::ldexp(1.f, -14))
    return sign | uint16_t(std::nearbyint(std::ldexp(magnitude, 24)));
  uint32_t rounded = (bits & 0x7fffffffu) - (112u << 23);
  rounded += 0xfffu + (rounded >> 13 & 1);
  return sign | uint16_t(rounded >> 13);
}
inline float bfloat16_to_float(uint16_t value) { return bits_float(uint32_t{value} << 16); }
inline uint16_t float_to_bfloat16(float value) {
  uint32_t bits = float_bits(value);
  if (std::isnan(value)) return 0x7fffu;
  bits += 0x7fffu + (bits >> 16 & 1);
  return uint16_t(bits >> 16);
}

}  // namespace cuda_emulator

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __half2float(__half value) { return cuda_emulator::half_to_float(value.bits); }
inline __half __float2half_rn(float value) { return {cuda_emulator::float_to_half(value)}; }
inline float __bfloat162float(__nv_bfloat16 value) {
  return cuda_emulator::bfloat16_to_float(value.bits);
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  return {cuda_emulator::float_to_bfloat16(value)};
}
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}

template <class T>
T __ldg(const T* pointer) {
  return *pointer;
}
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

inline void __syncthreads(int line = __builtin_LINE()) { cuda_emulator::barrier(line); }
inline void __syncwarp(uint32_t mask = 0xffffffffu, int line = __builtin_LINE()) {
  cuda_emulator::warp_collective([](void* const*, uint32_t) {}, nullptr, mask, line);
}

namespace cuda_emulator {

template <class T>
struct Shuffle {
  T value, result;
  int source;
};

// As the hardware does, a lane that names a source outside its segment (or `source` < 0) reads its
// own value.
template <class T>
T shuffle(uint32_t mask, T value, int source, int line) {
  Shuffle<T> arguments{value, value, source};
  warp_collective(
      [](void* const* all, uint32_t active) {
        for (int lane = 0; lane < 32; ++lane) {
          if (!(active >> lane & 1)) continue;
          auto& own = *static_cast<Shuffle<T>*>(all[lane]);
          const int from = own.source < 0 ? lane : own.source;
          if (!(active >> from & 1))
            fail("a shuffle reads lane " + std::to_string(from) + ", which does not take part");
          own.result = static_cast<Shuffle<T>*>(all[from])->value;
        }
      },
      &arguments, mask, line);
  return arguments.result;
}

inline int lane_index() { return machine().current % 32; }

}  // namespace cuda_emulator

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
  const int lane = cuda_emulator::lane_index();
  return cuda_emulator::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), line);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32,
                  int line = __builtin_LINE()) {
  const int lane = cuda_emulator::lane_index(), source = lane ^ lane_mask;
  return cuda_emulator::shuffle(mask, value, source <= (lane | (width - 1)) ? source : -1, line);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   int line = __builtin_LINE()) {
  const int lane = cuda_emulator::lane_index(), source = lane + int(delta);
  return cuda_emulator::shuffle(mask, value, source <= (lane | (width - 1)) ? source : -1, line);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 int line = __builtin_LINE()) {
  const int lane = cuda_emulator::lane_index(), source = lane - int(delta);
  return cuda_emulator::shuffle(mask, value, source >= (lane & ~(width - 1)) ? source : -1, line);
}

namespace cuda_emulator {

// ldmatrix: matrix i is 8 rows of 8 elements of 16 bits, row r at the address that lane 8 i + r
// gives. Lane l receives, as register i, the elements (l / 4, 2 (l % 4)) and (l / 4, 2 (l % 4) +
// 1), with .trans those of the transposed matrix.
struct LoadMatrix {
  const void* row;
  uint32_t* registers;
};

template <int kMatrices, bool kTranspose>
void load_matrix(uint32_t* registers, const void* row, int line) {
  LoadMatrix arguments{row, registers};
  warp_collective(
      [](void* const* all, uint32_t active) {
        if (active != 0xffffffffu) fail("ldmatrix by an incomplete warp");
        for (int i = 0; i < kMatrices; ++i) {
          uint16_t matrix[8][8];
          for (int r = 0; r < 8; ++r) {
            const void* source = static_cast<LoadMatrix*>(all[8 * i + r])->row;
            if (reinterpret_cast<uintptr_t>(source) % 16)
              fail("ldmatrix from an address that is no multiple of 16");
            std::memcpy(matrix[r], source, 16);
          }
          for (int lane = 0; lane < 32; ++lane) {
            const int major = lane / 4, minor = 2 * (lane % 4);
            const uint16_t low = kTranspose ? matrix[minor][major] : matrix[major][minor];
            const uint16_t high = kTranspose ? matrix[minor + 1][major] : matrix[major][minor + 1];
            static_cast<LoadMatrix*>(all[lane])->registers[i] = low | uint32_t{high} << 16;
          }
        }
      },
      &arguments, 0xffffffffu, line);
}

// mma.sync.aligned.m16n8k{8,16}.row.col: with g = lane / 4 and t = lane % 4, element j of register
// i is
//   A: (g + 8 (i % 2), 2 t + j + 8 (i / 2)), B: (2 t + j + 8 i, g), D: register i is (g + 8 (i /
//   2), 2 t + i % 2).
struct MultiplyMatrix {
  float* d;
  const uint32_t *a, *b;
};

template <float (*kConvert)(uint16_t), int kDepth>
void multiply_matrix(float* d, const uint32_t* a, const uint32_t* b, int line) {
  MultiplyMatrix arguments{d, a, b};
  warp_collective(
      [](void* const* all, uint32_t active) {
        if (active != 0xffffffffu) fail("mma by an incomplete warp");
        float a_matrix[16][kDepth], b_matrix[kDepth][8];
        for (int lane = 0; lane < 32; ++lane) {
          const auto& own = *static_cast<MultiplyMatrix*>(all[lane]);
          const int g = lane / 4, t = lane % 4;
          for (int j = 0; j < 2; ++j) {
            for (int i = 0; i < kDepth / 4; ++i) {
              a_matrix[g + 8 * (i % 2)][2 * t + j + 8 * (i / 2)] =
                  kConvert(uint16_t(own.a[i] >> 16 * j));
            }
            for (int i = 0; i < kDepth / 8; ++i)
              b_matrix[2 * t + j + 8 * i][g] = kConvert(uint16_t(own.b[i] >> 16 * j));
          }
        }
        for (int lane = 0; lane < 32; ++lane) {
          const auto& own = *static_cast<MultiplyMatrix*>(all[lane]);
          for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
            double sum = own.d[i];
            for (int k = 0; k < kDepth; ++k) sum += double{a_matrix[row][k]} * b_matrix[k][column];
            own.d[i] = float(sum);
          }
        }
      },
      &arguments, 0xffffffffu, line);
}

inline void copy_async(void* target, const void* source, unsigned bytes, unsigned source_bytes) {
  if (reinterpret_cast<uintptr_t>(target) % bytes ||
      (source_bytes && reinterpret_cast<uintptr_t>(source) % bytes)) {
    fail("cp.async of " + std::to_string(bytes) + " bytes from or to a misaligned address");
  }
  Machine& m = machine();
  m.threads[m.current]->open_group.push_back({target, source, bytes, source_bytes});
}
inline void copy_async_commit() {
  Machine& m = machine();
  Thread& thread = *m.threads[m.current];
  thread.groups.push_back(std::move(thread.open_group));
  thread.open_group.clear();
}
inline void copy_async_wait(size_t still_pending) {
  Machine& m = machine();
  auto& groups = m.threads[m.current]->groups;
  while (groups.size() > still_pending) {
    for (const Copy& copy : groups.front()) {
      auto* target = static_cast<unsigned char*>(copy.target);
      // A loop of bytes and not memcpy: the source may be null when there is nothing to read.
      for (unsigned i = 0; i < copy.bytes; ++i) {
        target[i] = i < copy.source_bytes ? static_cast<const unsigned char*>(copy.source)[i] : 0;
      }
    }
    groups.erase(groups.begin());
  }
}

}  // namespace cuda_emulator
