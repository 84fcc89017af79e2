// Every use of PTX, and every other thing that nvcc and the host emulator (tests/cuda_emulator)
// spell differently, so that the kernels themselves are the same text for both. Nothing here needs
// more than sm_80.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "cuda_emulator.h"
#endif

// Declares `name` as a pointer to the block's dynamic shared memory, aligned to 16 bytes.
#if defined(__CUDACC__)
#define UNIREPLKNET_DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) unsigned char unireplknet_shared[]; \
  type* name = reinterpret_cast<type*>(unireplknet_shared)
#else
#define UNIREPLKNET_DYNAMIC_SHARED(type, name) \
  type* name = static_cast<type*>(cuda_emulator::dynamic_shared())
#endif

namespace unireplknet::cuda {

// Dynamic shared memory that a kernel gets without asking; what the smallest of the supported
// architectures can give.
constexpr size_t kDefaultSharedBytes = 48 * 1024;
constexpr size_t kMaxSharedBytes = 99 * 1024;

// Launches `kernel` and returns the launch's error, for the host function to report. Safe under
// CUDA graph capture.
template <class... Parameters, class... Arguments>
inline cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                          cudaStream_t stream, Arguments... arguments) {
#if defined(__CUDACC__)
  if (shared_bytes > kDefaultSharedBytes) {
    // The attribute belongs to the kernel on the current device, so it is set at every launch; that
    // takes about a microsecond. Always to the same limit: with this launch's own size it would
    // sink below what another thread is about to launch with.
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(kMaxSharedBytes));
    if (error != cudaSuccess) {
      (void)cudaGetLastError();  // or the next launch would report it as its own
      return error;
    }
  }
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  return cudaGetLastError();
#else
  (void)stream;
  return cuda_emulator::launch(kernel, grid, block, shared_bytes,
                               static_cast<Parameters>(arguments)...);
#endif
}

// Conversions between a storage type and fp32, one rounding to nearest even.
__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Two 16-bit values as a register holds them, `low` at the lower address.
__device__ __forceinline__ uint32_t bits_of(__half value) { return __half_as_ushort(value); }
__device__ __forceinline__ uint32_t bits_of(__nv_bfloat16 value) {
  return __bfloat16_as_ushort(value);
}
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  return bits_of(from_float<T>(low)) | bits_of(from_float<T>(high)) << 16;
}

// An address in shared memory as the instructions below take it; offsets in bytes may be added to
// it.
#if defined(__CUDACC__)
using SharedAddress = uint32_t;
__device__ __forceinline__ SharedAddress shared_address(const void* pointer) {
  return static_cast<SharedAddress>(__cvta_generic_to_shared(pointer));
}
#else
using SharedAddress = uintptr_t;
inline SharedAddress shared_address(const void* pointer) {
  return reinterpret_cast<SharedAddress>(pointer);
}
#endif

// Stores of 8 and 16 bytes to global memory, aligned to their size. As plain assignments in two
// branches, nvcc merges what the branches have in common and leaves stores of 4 bytes.
__device__ __forceinline__ void store_global(void* target, uint32_t a, uint32_t b) {
#if defined(__CUDACC__)
  asm volatile("st.global.v2.u32 [%0], {%1, %2};\n" ::"l"(__cvta_generic_to_global(target)), "r"(a),
               "r"(b)
               : "memory");
#else
  *static_cast<uint2*>(target) = make_uint2(a, b);
#endif
}
__device__ __forceinline__ void store_global(void* target, uint32_t a, uint32_t b, uint32_t c,
                                             uint32_t d) {
#if defined(__CUDACC__)
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(__cvta_generic_to_global(target)),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
#else
  *static_cast<uint4*>(target) = make_uint4(a, b, c, d);
#endif
}

// Asynchronous copy of kBytes (4, 8 or 16, source and target aligned to it) from global to shared
// memory; where `valid` is false nothing is read and zeros are written. Done when a cp_async_wait
// covers its group, for this thread only: others need a barrier after that wait.
template <int kBytes>
__device__ __forceinline__ void cp_async(SharedAddress target, const void* source,
                                         bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
#if defined(__CUDACC__)
  const int source_bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(target), "l"(source),
                 "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(target), "l"(source),
                 "n"(kBytes), "r"(source_bytes)
                 : "memory");
  }
#else
  cuda_emulator::copy_async(reinterpret_cast<void*>(target), source, kBytes, valid ? kBytes : 0);
#endif
}

// Closes the group of the copies started since the last commit.
__device__ __forceinline__ void cp_async_commit() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#else
  cuda_emulator::copy_async_commit();
#endif
}

// Waits until at most the kPending youngest groups of this thread are under way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
#else
  cuda_emulator::copy_async_wait(kPending);
#endif
}

// ldmatrix: kMatrices 8x8 matrices of 16-bit elements; lane 8 i + r gives the address of row r of
// matrix i.
#if defined(__CUDACC__)
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[1], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n"
               : "=r"(r[0])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[2], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[1], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n"
               : "=r"(r[0])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[2], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
#else
template <int kMatrices>
inline void ldmatrix(uint32_t (&r)[kMatrices], SharedAddress row, int line = __builtin_LINE()) {
  cuda_emulator::load_matrix<kMatrices, false>(r, reinterpret_cast<const void*>(row), line);
}
template <int kMatrices>
inline void ldmatrix_trans(uint32_t (&r)[kMatrices], SharedAddress row,
                           int line = __builtin_LINE()) {
  cuda_emulator::load_matrix<kMatrices, true>(r, reinterpret_cast<const void*>(row), line);
}
#endif

// d += a * b on the tensor cores for T = __half or __nv_bfloat16, fp32 accumulators: mma.m16n8k16,
// and with half as many registers for a and b m16n8k8. Fragment layouts: with g = lane / 4 and t =
// lane % 4, element j (0 low, 1 high) of register i of a is (row g + 8 (i % 2), column 2 t + j + 8
// (i / 2)), of b (row 2 t + j + 8 i, column g); d[i] is (row g + 8 (i / 2), column 2 t + i % 2).
// Volatile: all lanes take part, so that no compiler may move one into a branch.
#if defined(__CUDACC__)
template <class T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    static_assert(std::is_same_v<T, __nv_bfloat16>, "fp16 or bf16");
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, "
        "%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}
template <class T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, "
        "%1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  } else {
    static_assert(std::is_same_v<T, __nv_bfloat16>, "fp16 or bf16");
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, "
        "%1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  }
}
#else
template <class T>
constexpr auto kBitsToFloat = cuda_emulator::half_to_float;
template <>
inline constexpr auto kBitsToFloat<__nv_bfloat16> = cuda_emulator::bfloat16_to_float;

template <class T>
inline void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                int line = __builtin_LINE()) {
  cuda_emulator::multiply_matrix<kBitsToFloat<T>, 16>(d, a, b, line);
}
template <class T>
inline void mma(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1],
                int line = __builtin_LINE()) {
  cuda_emulator::multiply_matrix<kBitsToFloat<T>, 8>(d, a, b, line);
}
#endif

}  // namespace unireplknet::cuda
