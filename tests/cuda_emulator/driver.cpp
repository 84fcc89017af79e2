// Runs the CUDA kernels of ops/csrc/cuda on the host. Reads one case a line from standard input,
//
//   operation kernels dtype n c h w kernel_height kernel_width dilation bias offset first second [third] out
//
// with operation forward, backward_input or backward_weight; kernels a name from run_case's table; dtype float32, float16 or
// bfloat16; bias 0 or 1; offset the number of elements by which every tensor misses the allocation's alignment; then files
// of raw elements: x or grad_output, filter (backward_weight: x), the bias if there is one, and the output to write. Prints
// a line "done" or "refused" for each case. Every tensor lies in an allocation of its own size, so that AddressSanitizer sees
// accesses beyond it; outputs and workspace begin as NaN.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "direct_launch.cuh"

using namespace unireplknet::cuda;

namespace {

template <class T>
class Buffer {
 public:
  Buffer(int64_t count, int offset) : count_(count), offset_(offset), bytes_(new unsigned char[(count + offset) * sizeof(T)]) {
    std::fill_n(bytes_.get(), (count + offset) * sizeof(T), static_cast<unsigned char>(0xff));
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
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(data()), count_ * sizeof(T));
  }

 private:
  int64_t count_, offset_;
  std::unique_ptr<unsigned char[]> bytes_;
};

struct Case {
  std::string operation, kernels, dtype;
  Shape shape;
  bool bias;
  int offset;
  std::vector<std::string> files;
};

template <class T>
bool run_case(const Case& c) {
  const Shape& shape = c.shape;
  const int64_t map = shape.planes() * shape.height * shape.width;
  const int64_t filter = shape.channels * shape.kernel_height * shape.kernel_width;
  Buffer<T> first(map, c.offset), second(c.operation == "backward_weight" ? map : filter, c.offset);
  Buffer<T> bias(c.bias ? shape.channels : 0, c.offset), out(c.operation == "backward_weight" ? filter : map, c.offset);
  first.read(c.files[0]);
  second.read(c.files[1]);
  if (c.bias) bias.read(c.files[2]);
  cudaError_t error = cudaErrorInvalidValue;
  if (c.operation == "backward_weight") {
    if (c.kernels == "direct") {
      Buffer<float> workspace(direct_backward_weight_workspace<T>(shape), 0);
      error = direct_backward_weight(first.data(), second.data(), out.data(), workspace.data(), shape, nullptr);
    }
  } else {
    const bool flip = c.operation == "backward_input";
    if (c.kernels == "direct") {
      error = direct_forward(first.data(), second.data(), c.bias ? bias.data() : nullptr, out.data(), shape, flip, nullptr);
    }
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
    Shape& s = c.shape;
    fields >> c.operation >> c.kernels >> c.dtype >> s.batch >> s.channels >> s.height >> s.width >> s.kernel_height >>
        s.kernel_width >> s.dilation >> c.bias >> c.offset;
    c.files.assign(std::istream_iterator<std::string>(fields), {});
    bool done = false;
    if (c.dtype == "float32") done = run_case<float>(c);
    if (c.dtype == "float16") done = run_case<__half>(c);
    if (c.dtype == "bfloat16") done = run_case<__nv_bfloat16>(c);
    std::puts(done ? "done" : "refused");
    std::fflush(stdout);
  }
}
