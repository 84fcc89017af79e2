// Small kernels that show that the emulator computes what a GPU would and refuses what a GPU would
// get wrong. The first argument names the case; cases that must fail end in the emulator's error or
// in AddressSanitizer's.
#include <cstdio>
#include <string>
#include <vector>

#include "direct_tile.cuh"

using namespace unireplknet::cuda;

namespace {

__global__ void sum_by_warps(const float* x, float* out) {
  __shared__ float partial[32];
  float sum = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned i = 1; i < blockDim.x / 32; ++i) sum += partial[i];
    out[blockIdx.x] = sum;
  }
}

// a (16 x 16 row-major), b (8 x 16: one row per column of the product), d (16 x 8), through the
// paths that kernels use: cp.async to shared memory, ldmatrix (b once with and once without
// .trans), mma.
template <class T, bool kTranspose>
__global__ void multiply(const T* a, const T* b, float* d) {
  UNIREPLKNET_DYNAMIC_SHARED(T, shared);
  T* b_shared = shared + 16 * 16;
  const int lane = threadIdx.x;
  cp_async<16>(shared_address(shared + lane * 8), a + lane * 8);
  if (!kTranspose) {
    cp_async<16>(shared_address(b_shared + lane % 16 * 8), b + lane % 16 * 8, lane < 16);
  } else {
    for (int i = lane; i < 128; i += 32) b_shared[i % 16 * 8 + i / 16] = b[i];
  }
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  if (!kTranspose && lane >= 16) {
    // The copies with valid = false wrote zeros over the first half of the lanes' work; do it again
    // without them.
    for (int i = lane - 16; i < 128; i += 16) b_shared[i] = b[i];
  }
  __syncwarp();
  uint32_t a_registers[4], b_registers[2];
  ldmatrix(a_registers, shared_address(shared + lane % 16 * 16 + lane / 16 * 8));
  if (kTranspose) {
    ldmatrix_trans(b_registers, shared_address(b_shared + lane % 16 * 8));
  } else {
    ldmatrix(b_registers, shared_address(b_shared + lane % 8 * 16 + lane / 8 % 2 * 8));
  }
  float sums[4] = {0.f, 0.f, 0.f, 0.f};
  mma<T>(sums, a_registers, b_registers);
  // The product of the first half of the depth alone, taken away again through the shallow
  // instruction.
  float half_sums[4] = {0.f, 0.f, 0.f, 0.f};
  mma<T>(half_sums, {a_registers[0], a_registers[1]}, {b_registers[0]});
  for (int i = 0; i < 4; ++i) {
    d[(lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2] = sums[i];
    d[128 + (lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2] = half_sums[i];
  }
}

template <class T, bool kTranspose>
bool multiply_is_right() {
  std::vector<T> a(256), b(128);
  std::vector<float> d(256);
  for (int i = 0; i < 256; ++i) a[i] = from_float<T>(float(i * 7 % 31) - 15.f);
  for (int i = 0; i < 128; ++i) b[i] = from_float<T>(float(i * 5 % 17) - 8.f);
  if (launch(multiply<T, kTranspose>, 1, 32, 384 * sizeof(T), nullptr, a.data(), b.data(),
             d.data()) != cudaSuccess) {
    return false;
  }
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float expected = 0.f, first_half = 0.f;
      for (int k = 0; k < 16; ++k) {
        expected += to_float(a[row * 16 + k]) * to_float(b[column * 16 + k]);
        if (k == 7) first_half = expected;
      }
      if (d[row * 8 + column] != expected || d[128 + row * 8 + column] != first_half) return false;
    }
  }
  return true;
}

__global__ void barrier_in_branch(float* out) {
  if (threadIdx.x < 32) __syncthreads();
  out[threadIdx.x] = 0.f;
}

__global__ void different_barriers(float* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 0.f;
}

__global__ void shuffle_in_branch(float* out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.f, 1);
}

__global__ void missing_barrier(float* out) {
  UNIREPLKNET_DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x] = 1.f;
  out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

__global__ void copy_not_waited_for(const float* x, float* out) {
  UNIREPLKNET_DYNAMIC_SHARED(float, shared);
  cp_async<4>(shared_address(shared + threadIdx.x), x + threadIdx.x);
  cp_async_commit();
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void beyond_shared(float* out) {
  UNIREPLKNET_DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x + 1] = 1.f;
  out[threadIdx.x] = 0.f;
}

__global__ void beyond_global(const float* x, float* out) { out[threadIdx.x] = x[threadIdx.x + 1]; }

__global__ void misaligned(const float* x, float* out) {
  out[threadIdx.x] = reinterpret_cast<const float4*>(x + threadIdx.x)->x;
}

int check(bool right) {
  std::puts(right ? "right" : "wrong");
  return right ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string name = count > 1 ? arguments[1] : "";
  std::vector<float> x(64, 1.f), out(64, 0.f);
  auto all_ones = [&] {
    for (float value : out) {
      if (!(value == 1.f)) return false;
    }
    return true;
  };
  if (name == "sum") {
    std::vector<float> many(3 * 128), sums(3);
    for (size_t i = 0; i < many.size(); ++i) many[i] = float(i);
    launch(sum_by_warps, 3, 128, 0, nullptr, many.data(), sums.data());
    return check(sums[0] == 8128.f && sums[1] == 24512.f && sums[2] == 40896.f);
  }
  if (name == "multiply") {
    return check(multiply_is_right<__half, false>() && multiply_is_right<__half, true>() &&
                 multiply_is_right<__nv_bfloat16, false>() &&
                 multiply_is_right<__nv_bfloat16, true>());
  }
  if (name == "too_much_shared")
    return check(launch(missing_barrier, 1, 64, 100 * 1024, nullptr, out.data()) != cudaSuccess);
  if (name == "conversions") {
    bool right = true;
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const float half = cuda_emulator::half_to_float(uint16_t(bits));
      right = right && (half != half || cuda_emulator::float_to_half(half) == bits);
      const float bfloat16 = cuda_emulator::bfloat16_to_float(uint16_t(bits));
      right = right && (bfloat16 != bfloat16 || cuda_emulator::float_to_bfloat16(bfloat16) == bits);
    }
    using cuda_emulator::float_to_half;
    right = right && float_to_half(1.f + 1.f / 2048) == 0x3c00 &&
            float_to_half(1.f + 3.f / 2048) == 0x3c02;
    right = right && float_to_half(65519.f) == 0x7bff && float_to_half(65520.f) == 0x7c00;
    right = right && cuda_emulator::float_to_bfloat16(1.f + 1.f / 256) == 0x3f80;
    return check(right);
  }
  if (name == "division") {
    bool right = true;
    std::vector<unsigned> numbers = {0x7ffffffeu, 0x7fffffffu};
    for (unsigned power = 1; power < 0x80000000u; power *= 2) {
      for (unsigned number : {power - 1, power, power + 1, 3 * (power / 4) + 1}) {
        numbers.push_back(number);
      }
    }
    for (unsigned divisor : numbers) {
      if (divisor == 0) continue;
      const Divisor fast(divisor);
      for (unsigned number : numbers) right = right && fast.divide(number) == number / divisor;
    }
    return check(right);
  }
  if (name == "barrier_in_branch") launch(barrier_in_branch, 1, 64, 0, nullptr, out.data());
  if (name == "different_barriers") launch(different_barriers, 1, 64, 0, nullptr, out.data());
  if (name == "shuffle_in_branch") launch(shuffle_in_branch, 1, 64, 0, nullptr, out.data());
  if (name == "missing_barrier") launch(missing_barrier, 1, 64, 256, nullptr, out.data());
  if (name == "copy_not_waited_for")
    launch(copy_not_waited_for, 1, 64, 256, nullptr, x.data(), out.data());
  if (name == "beyond_shared") launch(beyond_shared, 1, 64, 256, nullptr, out.data());
  if (name == "beyond_global") launch(beyond_global, 1, 64, 0, nullptr, x.data(), out.data());
  if (name == "misaligned") launch(misaligned, 1, 64, 0, nullptr, x.data(), out.data());
  return check(all_ones());
}
