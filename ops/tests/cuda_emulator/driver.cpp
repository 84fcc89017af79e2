// Runs the CUDA kernels of depthwise_conv2d on the host. Reads one case a line from standard input,
//
//   operation kernels dtype n c h w kernel_height kernel_width dilation bias offset files...
//
// with operation forward, backward_input or backward_weight; kernels direct or tensor_core; dtype
// float32, float16 or bfloat16; bias 0 or 1; offset the number of elements by which every tensor
// misses the alignment of its allocation; then files of raw elements: x or grad_output, the filter
// (backward_weight: x), the bias if there is one, and the output to write. Without files nothing
// but the launch configuration is checked. Prints a line "done" or "refused" for each case. Every
// tensor lies in an allocation of its own size, so that AddressSanitizer sees accesses beyond it;
// outputs and workspace begin as NaN. UNIREPLKNET_CUDA_VARIANTS is read as by the library;
// with channels_last the maps are taken to lie so where the kernels for it can run.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "direct.cuh"
#include "tensor_core.cuh"

using namespace unireplknet::cuda;

namespace {

template <class T>
class Buffer {
 public:
  Buffer(int64_t count, int offset)
      : count_(count), offset_(offset), bytes_(new unsigned char[(count + offset) * sizeof(T)]) {
    std::memset(bytes_.get(), 0xff, (count + offset) * sizeof(T));
  }
  T* data() { return reinterpret_cast<T*>(bytes_.get()) + offset_; }
  void read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(data()), count_ * sizeof(T));
    if (file.gcount() != static_cast<std::streamsize>(count_ * sizeof(T)) || file.peek() != EOF) {
      cuda_emulator::fail("wrong size of " + path);
    }
  }
  void write(const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(data()), count_ * sizeof(T));
  }

 private:
  int64_t count_, offset_;
  std::unique_ptr<unsigned char[]> bytes_;
};

struct Case {
  std::string operation, kernels, dtype;
  Variants variants;
  Shape shape;
  bool bias;
  int offset;
  std::vector<std::string> files;
};

template <class T>
cudaError_t forward(const Case& c, const T* x, const T* weight, const T* bias, T* out) {
  const bool flip = c.operation == "backward_input";
  if (c.kernels == "direct") {
    return direct_forward(c.shape, x, weight, bias, flip, out, nullptr);
  }
  if constexpr (sizeof(T) == 2) {
    if (c.kernels == "tensor_core" && tensor_core_supported(c.shape)) {
      if (c.variants.channels_last && tensor_core_channels_last_supported(c.shape, x, out)) {
        return tensor_core_channels_last(c.shape, x, weight, bias, flip, out, nullptr);
      }
      return tensor_core_forward(c.shape, x, weight, bias, flip, out, nullptr, c.variants);
    }
  }
  return cudaErrorInvalidValue;
}

template <class T>
size_t workspace_bytes(const Case& c) {
  if (c.kernels == "direct") return direct_backward_weight_workspace<T>(c.shape, c.variants);
  return tensor_core_backward_weight_workspace(c.shape, c.variants);
}

template <class T>
cudaError_t backward_weight(const Case& c, const T* grad_output, const T* x, T* grad_weight,
                            float* workspace) {
  if (c.kernels == "direct") {
    return direct_backward_weight(c.shape, grad_output, x, grad_weight, workspace, nullptr,
                                  c.variants);
  }
  if constexpr (sizeof(T) == 2) {
    if (c.kernels == "tensor_core" && tensor_core_supported(c.shape)) {
      return tensor_core_backward_weight(c.shape, grad_output, x, grad_weight, workspace, nullptr,
                                         c.variants);
    }
  }
  return cudaErrorInvalidValue;
}

template <class T>
bool run_case(const Case& c) {
  const bool weight_gradient = c.operation == "backward_weight";
  if (c.files.empty()) {
    T* const none = nullptr;
    return (weight_gradient ? backward_weight<T>(c, none, none, none, nullptr)
                            : forward<T>(c, none, none, none, none)) == cudaSuccess;
  }
  const Shape& shape = c.shape;
  const int64_t map = shape.planes() * shape.height * shape.width;
  const int64_t filter = shape.channels * shape.kernel_height * shape.kernel_width;
  Buffer<T> first(map, c.offset), second(weight_gradient ? map : filter, c.offset);
  Buffer<T> bias(c.bias ? shape.channels : 0, c.offset);
  Buffer<T> out(weight_gradient ? filter : map, c.offset);
  first.read(c.files[0]);
  second.read(c.files[1]);
  if (c.bias) bias.read(c.files[2]);
  cudaError_t error;
  if (weight_gradient) {
    Buffer<float> workspace(workspace_bytes<T>(c) / sizeof(float), 0);
    error = backward_weight(c, first.data(), second.data(), out.data(), workspace.data());
  } else {
    error = forward<T>(c, first.data(), second.data(), c.bias ? bias.data() : nullptr, out.data());
  }
  if (error != cudaSuccess) return false;
  out.write(c.files.back());
  return true;
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream fields(line);
    Case c{};
    const char* variants = std::getenv("UNIREPLKNET_CUDA_VARIANTS");
    if (!parse_variants(variants ? variants : "", c.variants)) return 2;
    Shape& s = c.shape;
    fields >> c.operation >> c.kernels >> c.dtype >> s.batch >> s.channels >> s.height >> s.width >>
        s.kernel_height >> s.kernel_width >> s.dilation >> c.bias >> c.offset;
    c.files.assign(std::istream_iterator<std::string>(fields), {});
    bool done = false;
    if (c.dtype == "float32") done = run_case<float>(c);
    if (c.dtype == "float16") done = run_case<__half>(c);
    if (c.dtype == "bfloat16") done = run_case<__nv_bfloat16>(c);
    std::puts(done ? "done" : "refused");
    std::fflush(stdout);
  }
}
