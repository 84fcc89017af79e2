// Runs the tensor-core kernels on the host and compares them with sums in float64 of what the
// definition says.
//
// Usage: tensor_core_test forward|backward_input|backward_weight float16|bfloat16 N C H W Kh Kw
// [elements of misalignment] Ends with status 1 and the first wrong element, or with status 0 and
// the greatest error as a fraction of what is allowed.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "tensor_core_backward_weight.cuh"
#include "tensor_core_forward.cuh"

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

template <class T>
int run(const std::string& what, const Shape& shape, int misalignment) {
  const size_t elements = shape.planes() * shape.height * shape.width,
               plane_size = size_t(shape.height) * shape.width;
  const size_t taps = size_t(shape.kernel_height) * shape.kernel_width;
  if (!tensor_core_supported(shape)) return 2;
  Array<T> x(elements, misalignment);
  x.randomize(1);
  if (what == "backward_weight") {
    Array<T> grad_output(elements, misalignment), result(shape.channels * taps, misalignment);
    grad_output.randomize(2);
    Array<float> workspace(tensor_core::backward_weight_workspace(shape) / sizeof(float), 0);
    if (tensor_core_backward_weight<T>(shape, grad_output.data(), x.data(), result.data(),
                                       workspace.data(), nullptr) != cudaSuccess) {
      return 3;
    }
    std::vector<Sum> expected(result.size());
    for_products(shape, [&](int64_t plane, int to, int tap, int from) {
      expected[plane % shape.channels * taps + tap].add(grad_output[plane * plane_size + to] *
                                                        x[plane * plane_size + from]);
    });
    return compare(what.c_str(), result, expected);
  }
  const bool flip = what == "backward_input";
  Array<T> weight(shape.channels * taps, misalignment), bias(shape.channels, misalignment),
      result(elements, misalignment);
  weight.randomize(2);
  bias.randomize(3);
  if (tensor_core_forward<T>(shape, x.data(), weight.data(), flip ? nullptr : bias.data(), flip,
                             result.data(), nullptr) != cudaSuccess) {
    return 3;
  }
  std::vector<Sum> expected(elements);
  for_products(shape, [&](int64_t plane, int to, int tap, int from) {
    const size_t filter = plane % shape.channels * taps, start = plane * plane_size;
    // The gradient with respect to the element that the tap reads.
    if (flip) {
      expected[start + from].add(x[start + to] * weight[filter + tap]);
    } else {
      expected[start + to].add(x[start + from] * weight[filter + tap]);
    }
  });
  for (size_t i = 0; !flip && i < elements; ++i)
    expected[i].add(bias[i / plane_size % shape.channels]);
  return compare(what.c_str(), result, expected);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 9) return 2;
  auto number = [&](int i) { return i < count ? std::atoi(arguments[i]) : 0; };
  const Shape shape{number(3), number(4), number(5), number(6), number(7), number(8), 1};
  const std::string what = arguments[1], type = arguments[2];
  return type == "float16" ? run<__half>(what, shape, number(9))
                           : run<__nv_bfloat16>(what, shape, number(9));
}
