// Runs the tensor-core kernels on the host and compares them with sums in float64 of what the
// definition says.
//
// Usage: tensor_core_test forward|backward_input|backward_weight float16|bfloat16 N C H W Kh Kw
//                         [elements of misalignment [all|chosen [variants]]]
// With `all` every plan that fits is tried, and not only the one that the library would choose; of
// the variants named, as in UNIREPLKNET_CUDA_VARIANTS. Ends with status 1 if an element is wrong;
// prints the first wrong element of each plan, or the greatest error as a fraction of what is
// allowed.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "tensor_core_backward_weight.cuh"
#include "tensor_core_channels_last.cuh"

using namespace unireplknet::cuda;

namespace {

// An array of T that starts `misalignment` elements after a multiple of 16 bytes and ends where its
// allocation ends.
template <class T>
class Array {
 public:
  Array(size_t size, int misalignment)
      : bytes_(new(std::align_val_t{16}) unsigned char[(size + misalignment) * sizeof(T)]),
        data_(reinterpret_cast<T*>(bytes_) + misalignment),
        size_(size) {
    std::memset(bytes_, 0xff, (size + misalignment) * sizeof(T));
  }
  ~Array() { ::operator delete[](bytes_, std::align_val_t{16}); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  void randomize(unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < size_; ++i) data_[i] = from_float<T>(normal(generator));
  }
  T* data() { return data_; }
  double operator[](size_t i) const { return double{to_float(data_[i])}; }
  size_t size() const { return size_; }

 private:
  unsigned char* bytes_;
  T* data_;
  size_t size_;
};

struct Sum {
  double value = 0, magnitude = 0;
  void add(double term) {
    value += term;
    magnitude += std::fabs(term);
  }
};

template <class T>
int compare(const char* what, const Array<T>& result, const std::vector<Sum>& expected) {
  // One rounding to T, and fp32 sums whose terms may be added in any order.
  const double rounding = std::is_same_v<T, __half> ? std::ldexp(1., -11) : std::ldexp(1., -8);
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(result[i] - expected[i].value);
    const double allowed =
        1.01 * rounding * std::fabs(expected[i].value) + 4e-7 * expected[i].magnitude + 3e-8;
    if (!(error <= allowed)) {
      std::printf("%s: element %zu is %.7g, expected %.7g (error %.3g, allowed %.3g)\n", what, i,
                  result[i], expected[i].value, error, allowed);
      return 1;
    }
    worst = std::max(worst, error / allowed);
  }
  std::printf("%s: %.2f of the allowed error\n", what, worst);
  return 0;
}

// Calls `body(plane, y, x, tap, source)` for every product of the convolution: the tap (within the
// plane's filter) times element `source` of the plane goes into element (y, x) of it.
template <class Body>
void for_products(const Shape& shape, Body body) {
  for (int64_t plane = 0; plane < shape.planes(); ++plane) {
    for (int y = 0; y < shape.height; ++y) {
      for (int x = 0; x < shape.width; ++x) {
        for (int i = 0; i < shape.kernel_height; ++i) {
          const int row = y + i - shape.padding_height();
          if (row < 0 || row >= shape.height) continue;
          for (int j = 0; j < shape.kernel_width; ++j) {
            const int column = x + j - shape.padding_width();
            if (column < 0 || column >= shape.width) continue;
            body(plane, y * shape.width + x, i * shape.kernel_width + j,
                 row * shape.width + column);
          }
        }
      }
    }
  }
}

// Which of the ways to divide the work are tried: the one that the library would choose, or all.
enum class Plans { kChosen, kAll };

template <class T>
int run(const std::string& what, const Shape& shape, int misalignment, Plans plans,
        const Variants& variants) {
  using namespace tensor_core;
  const size_t plane_size = size_t(shape.height) * shape.width;
  const size_t elements = shape.planes() * plane_size;
  const size_t taps = size_t(shape.kernel_height) * shape.kernel_width;
  if (!tensor_core_supported(shape)) return 2;
  Array<T> x(elements, misalignment);
  x.randomize(1);
  int failures = 0, count = 0;
  if (what == "backward_weight") {
    Array<T> grad_output(elements, misalignment);
    grad_output.randomize(2);
    std::vector<Sum> expected(shape.channels * taps);
    for_products(shape, [&](int64_t plane, int to, int tap, int from) {
      expected[plane % shape.channels * taps + tap].add(grad_output[plane * plane_size + to] *
                                                        x[plane * plane_size + from]);
    });
    auto check = [&](BackwardWeightPlan plan) {
      Array<T> result(expected.size(), misalignment);
      Array<float> workspace(backward_weight_workspace(shape, plan) / sizeof(float), 0);
      complete_plan(plan, grad_output.data(), x.data());
      char name[160];
      std::snprintf(
          name, sizeof(name),
          "%s, %d images, %d x %d rows, %d x %d columns, %d splits, %d tap rows, %d stages",
          what.c_str(), plan.images, plan.tile_rows, plan.row_tiles, plan.tile_columns,
          plan.column_tiles, plan.splits, plan.tap_rows, plan.stages);
      const cudaError_t error = launch_backward_weight(plan, grad_output.data(), x.data(),
                                                       result.data(), workspace.data(), nullptr);
      failures += error != cudaSuccess || compare(name, result, expected);
      ++count;
    };
    if (plans == Plans::kChosen) {
      check(remembered_plan(shape, variants, choose_backward_weight_plan));
    } else {
      visit_backward_weight_plans(shape, variants, [&](BackwardWeightPlan plan) {
        check(plan);
        // Few channels have a block for every unit; let blocks have two and more as well.
        if (plan.splits == 1) return;
        plan.splits = std::max(1, plan.splits / 3);
        check(plan);
      });
    }
  } else {
    const bool flip = what == "backward_input";
    Array<T> weight(shape.channels * taps, misalignment), bias(shape.channels, misalignment);
    weight.randomize(2);
    bias.randomize(3);
    std::vector<Sum> expected(elements);
    // Where an element of a plane lies in the map.
    auto at = [&](int64_t plane, size_t position) {
      const int64_t image = plane / shape.channels, channel = plane % shape.channels;
      return variants.channels_last ? (image * plane_size + position) * shape.channels + channel
                                    : plane * plane_size + position;
    };
    for_products(shape, [&](int64_t plane, int to, int tap, int from) {
      const size_t filter = plane % shape.channels * taps;
      // Of the gradient, the element that the tap reads in the forward direction.
      if (flip) {
        expected[at(plane, from)].add(x[at(plane, to)] * weight[filter + tap]);
      } else {
        expected[at(plane, to)].add(x[at(plane, from)] * weight[filter + tap]);
      }
    });
    for (int64_t plane = 0; !flip && plane < shape.planes(); ++plane) {
      for (size_t i = 0; i < plane_size; ++i) {
        expected[at(plane, i)].add(bias[plane % shape.channels]);
      }
    }
    auto check = [&](ForwardPlan plan) {
      Array<T> result(elements, misalignment);
      complete_plan(plan, x.data(), result.data(), flip);
      char name[160];
      std::snprintf(name, sizeof(name), "%s, %d blocks, %d images, %d x %d rows, %d x %d columns",
                    what.c_str(), plan.blocks, plan.images, plan.tile_rows, plan.row_tiles,
                    plan.tile_columns, plan.column_tiles);
      const auto launch = variants.channels_last ? launch_channels_last<T> : launch_forward<T>;
      const cudaError_t error = launch(plan, x.data(), weight.data(), flip ? nullptr : bias.data(),
                                       result.data(), nullptr);
      failures += error != cudaSuccess || compare(name, result, expected);
      ++count;
    };
    if (plans == Plans::kChosen) {
      check(remembered_plan(
          shape, variants,
          variants.channels_last ? choose_channels_last_plan : choose_forward_plan));
    } else if (variants.channels_last) {
      visit_channels_last_plans(shape, check);
    } else {
      visit_forward_plans(shape, variants, check);
    }
  }
  std::printf("%d plans, %d wrong\n", count, failures);
  return failures != 0 || count == 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 9) return 2;
  auto number = [&](int i) { return i < count ? std::atoi(arguments[i]) : 0; };
  const Shape shape{number(3), number(4), number(5), number(6), number(7), number(8), 1};
  const std::string what = arguments[1], type = arguments[2];
  const Plans plans =
      count > 10 && std::string(arguments[10]) == "all" ? Plans::kAll : Plans::kChosen;
  Variants variants;
  if (!parse_variants(count > 11 ? arguments[11] : "", variants)) return 2;
  return type == "float16" ? run<__half>(what, shape, number(9), plans, variants)
                           : run<__nv_bfloat16>(what, shape, number(9), plans, variants);
}
