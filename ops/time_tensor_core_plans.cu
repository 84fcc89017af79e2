// Times every plan of the tensor-core kernels on a GPU, beside what the cost model expects and what
// it chooses, for each of the variants (shape.cuh): the ground for changing the constants in
// tensor_core_plan.cuh, and for taking a variant by default.
//
//   nvcc -std=c++17 -O3 -gencode arch=compute_90a,code=sm_90a -I ops/csrc/depthwise_conv2d/cuda
//        ops/time_tensor_core_plans.cu -o time_plans
//   ./time_plans quick|all|N C H W Kh Kw
//
// `all` takes the shapes of the paper's Table 1 and some detection maps, `quick` four of them.
// bf16, random numbers (a GPU may run faster on zeros); the median of seven launches, the
// second-level cache overwritten before each.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tensor_core_backward_weight.cuh"
#include "tensor_core_forward.cuh"

using namespace unireplknet::cuda;
using namespace unireplknet::cuda::tensor_core;

namespace {

constexpr size_t kFlushBytes = size_t{256} << 20;

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

// Numbers between -1 and 1, by a hash of their index.
__global__ void randomize(__nv_bfloat16* numbers, size_t count) {
  const size_t stride = size_t{gridDim.x} * blockDim.x;
  for (size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint64_t bits = (i + 1) * 0x9e3779b97f4a7c15;
    bits = (bits ^ bits >> 31) * 0xbf58476d1ce4e5b9;
    numbers[i] = __float2bfloat16_rn(static_cast<float>(bits >> 40) * 0x1p-23f - 1.f);
  }
}

template <class T>
T* allocate(size_t count) {
  T* pointer = nullptr;
  check(cudaMalloc(&pointer, count * sizeof(T)));
  return pointer;
}

__nv_bfloat16* allocate_random(size_t count) {
  auto* numbers = allocate<__nv_bfloat16>(count);
  randomize<<<1024, 256>>>(numbers, count);
  check(cudaGetLastError());
  return numbers;
}

// Microseconds of one call of `body`.
template <class Body>
double time(void* flush, Body body) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 8; ++i) {
    check(cudaMemsetAsync(flush, i, kFlushBytes, nullptr));
    check(cudaEventRecord(begin, nullptr));
    check(body());
    check(cudaEventRecord(end, nullptr));
    check(cudaEventSynchronize(end));
    times.push_back(0);
    check(cudaEventElapsedTime(&times.back(), begin, end));
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  std::sort(times.begin() + 1, times.end());
  return 1e3 * times[4];
}

void run(bool forward, const Shape& shape, const Variants& variants, double cycles_per_microsecond,
         void* flush) {
  using T = __nv_bfloat16;
  const size_t elements = shape.planes() * shape.height * shape.width;
  const size_t taps = shape.channels * shape.kernel_height * shape.kernel_width;
  T* x = allocate_random(elements);
  T* y = allocate_random(elements);
  T* filter = allocate_random(taps);
  std::printf("%s%s%s, %ld x %ld x %d x %d, kernel %d x %d\n",
              forward ? "forward" : "backward_weight", variants.seven_rows ? ", seven rows" : "",
              variants.prefetch ? ", prefetch" : "", static_cast<long>(shape.batch),
              static_cast<long>(shape.channels), shape.height, shape.width, shape.kernel_height,
              shape.kernel_width);
  double least = 1e30, least_expected = 1e30, chosen = 0;
  auto report = [&](const char* text, double expected, double measured) {
    std::printf("  %-90s expected %8.1f measured %8.1f us\n", text, expected, measured);
    least = std::min(least, measured);
    if (expected < least_expected) {
      least_expected = expected;
      chosen = measured;
    }
  };
  char text[128];
  if (forward) {
    visit_forward_plans(shape, variants, [&](ForwardPlan plan) {
      complete_plan(plan, x, y, false);
      std::snprintf(text, sizeof(text), "%d blocks, %d x %2d images, %d x %d rows, %d x %d columns",
                    plan.blocks, plan.groups_per_block, plan.images, plan.tile_rows, plan.row_tiles,
                    plan.tile_columns, plan.column_tiles);
      report(text, forward_cycles(shape, plan) / cycles_per_microsecond,
             time(flush, [&] { return launch_forward<T>(plan, x, filter, nullptr, y, nullptr); }));
    });
  } else {
    visit_backward_weight_plans(shape, variants, [&](BackwardWeightPlan plan) {
      complete_plan(plan, y, x);
      float* workspace = allocate<float>(backward_weight_workspace(shape, plan) / sizeof(float));
      std::snprintf(text, sizeof(text),
                    "%2d images, %d x %d rows of %d, %d x %d columns, %d warps, %d splits",
                    plan.images, plan.tile_rows, plan.row_tiles, plan.grad_layout.group_rows,
                    plan.tile_columns, plan.column_tiles, plan.threads() / 32, plan.splits);
      report(text, backward_weight_cycles(shape, plan) / cycles_per_microsecond, time(flush, [&] {
               return launch_backward_weight<T>(plan, y, x, filter, workspace, nullptr);
             }));
      check(cudaFree(workspace));
    });
  }
  if (least_expected < 1e30) std::printf("  best %.1f us, chosen %.1f us\n", least, chosen);
  check(cudaFree(x));
  check(cudaFree(y));
  check(cudaFree(filter));
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count == 2 ? arguments[1] : "";
  if (what != "quick" && what != "all" && count != 7) {
    std::fprintf(stderr, "usage: %s quick|all|N C H W Kh Kw\n", arguments[0]);
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what is printed stays if a time limit ends it
  int kilohertz = 0;
  check(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0));
  std::vector<Shape> shapes = {{64, 384, 32, 32, 13, 13, 1},
                               {64, 384, 64, 64, 13, 13, 1},
                               {64, 320, 14, 14, 13, 13, 1},
                               {2, 384, 50, 84, 13, 13, 1}};
  if (what == "all") {
    shapes.push_back({64, 384, 16, 16, 13, 13, 1});
    for (int size : {16, 32, 64}) {
      for (int kernel : {7, 31}) shapes.push_back({64, 384, size, size, kernel, kernel, 1});
    }
    shapes.push_back({64, 640, 7, 7, 13, 13, 1});
    shapes.push_back({2, 192, 100, 168, 13, 13, 1});
    shapes.push_back({2, 96, 200, 336, 7, 7, 1});
  } else if (what.empty()) {
    auto number = [&](int i) { return std::atoi(arguments[i]); };
    shapes = {{number(1), number(2), number(3), number(4), number(5), number(6), 1}};
  }
  void* flush = allocate<unsigned char>(kFlushBytes);
  for (const Shape& shape : shapes) {
    for (bool prefetch : {false, true}) {
      run(true, shape, {false, prefetch}, kilohertz / 1e3, flush);
      for (bool seven_rows : {false, true}) {
        run(false, shape, {seven_rows, prefetch}, kilohertz / 1e3, flush);
      }
    }
  }
  check(cudaFree(flush));
  return 0;
}
