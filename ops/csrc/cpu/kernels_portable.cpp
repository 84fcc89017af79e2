// Plain loops, for every machine.
#include <cstring>
#include <vector>

#include "kernels.h"

namespace unireplknet {
namespace {

template <DType>
struct Element;
template <>
struct Element<DType::kFloat32> {
  static double load(const void* data, int64_t i) { return static_cast<const float*>(data)[i]; }
  static void store(void* data, int64_t i, double v) {
    static_cast<float*>(data)[i] = static_cast<float>(v);
  }
};
template <>
struct Element<DType::kFloat64> {
  static double load(const void* data, int64_t i) { return static_cast<const double*>(data)[i]; }
  static void store(void* data, int64_t i, double v) { static_cast<double*>(data)[i] = v; }
};
template <>
struct Element<DType::kFloat16> {
  static double load(const void* data, int64_t i) { return static_cast<const _Float16*>(data)[i]; }
  static void store(void* data, int64_t i, double v) {
    static_cast<_Float16*>(data)[i] = static_cast<_Float16>(v);
  }
};
template <>
struct Element<DType::kBFloat16> {
  static double load(const void* data, int64_t i) {
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(data)[i]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  static void store(void* data, int64_t i, double v) {
    const float value = static_cast<float>(v);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    static_cast<uint16_t*>(data)[i] =
        static_cast<uint16_t>(value != value ? (bits >> 16) | 0x40 : rounded);
  }
};

template <DType dtype>
struct Loops {
  using E = Element<dtype>;
  struct Context {
    const Problem* p;
    const void *a, *b, *bias;
    Strides sa, sb;
    void* out;
    Strides so;
    bool flip;
  };
  static void forward_plane(int64_t task, void* context) {
    const Context& k = *static_cast<Context*>(context);
    const Problem& p = *k.p;
    const int64_t n = task / p.channels, c = task % p.channels;
    const int64_t taps = p.kernel_height * p.kernel_width;
    for (int64_t h = 0; h < p.height; ++h)
      for (int64_t w = 0; w < p.width; ++w) {
        double sum = k.bias ? E::load(k.bias, c) : 0;
        for (int64_t i = 0; i < p.kernel_height; ++i)
          for (int64_t j = 0; j < p.kernel_width; ++j) {
            const int64_t y = h + (i - p.kernel_height / 2) * p.dilation;
            const int64_t x = w + (j - p.kernel_width / 2) * p.dilation;
            if (y < 0 || x < 0 || y >= p.height || x >= p.width) continue;
            const int64_t tap = i * p.kernel_width + j;
            sum += E::load(k.b, c * taps + (k.flip ? taps - 1 - tap : tap)) *
                   E::load(k.a, n * k.sa.n + c * k.sa.c + y * k.sa.h + x * k.sa.w);
          }
        E::store(k.out, n * k.so.n + c * k.so.c + h * k.so.h + w * k.so.w, sum);
      }
  }
  static void weight_channel(int64_t c, void* context) {
    const Context& k = *static_cast<Context*>(context);
    const Problem& p = *k.p;
    for (int64_t i = 0; i < p.kernel_height; ++i)
      for (int64_t j = 0; j < p.kernel_width; ++j) {
        double sum = 0;
        for (int64_t n = 0; n < p.batch; ++n)
          for (int64_t h = 0; h < p.height; ++h)
            for (int64_t w = 0; w < p.width; ++w) {
              const int64_t y = h + (i - p.kernel_height / 2) * p.dilation;
              const int64_t x = w + (j - p.kernel_width / 2) * p.dilation;
              if (y < 0 || x < 0 || y >= p.height || x >= p.width) continue;
              sum += E::load(k.a, n * k.sa.n + c * k.sa.c + h * k.sa.h + w * k.sa.w) *
                     E::load(k.b, n * k.sb.n + c * k.sb.c + y * k.sb.h + x * k.sb.w);
            }
        E::store(k.out, (c * p.kernel_height + i) * p.kernel_width + j, sum);
      }
  }
};

template <template <DType> class F, typename... Args>
void for_dtype(DType dtype, Args&&... args) {
  switch (dtype) {
    case DType::kFloat32:
      return F<DType::kFloat32>::run(args...);
    case DType::kFloat64:
      return F<DType::kFloat64>::run(args...);
    case DType::kFloat16:
      return F<DType::kFloat16>::run(args...);
    case DType::kBFloat16:
      return F<DType::kBFloat16>::run(args...);
  }
}

template <DType d>
struct Forward {
  static void run(const Problem& p, const ConstMap& x, const void* weight, const void* bias,
                  bool flip, const Map& out, ParallelFor parallel_for) {
    typename Loops<d>::Context context{&p, x.data,   weight,      bias, x.strides,
                                       {}, out.data, out.strides, flip};
    parallel_for(p.batch * p.channels, Loops<d>::forward_plane, &context);
  }
};

template <DType d>
struct BackwardWeight {
  static void run(const Problem& p, const ConstMap& grad_output, const ConstMap& x,
                  void* grad_weight, ParallelFor parallel_for) {
    typename Loops<d>::Context context{
        &p,        grad_output.data, x.data, nullptr, grad_output.strides,
        x.strides, grad_weight,      {},     false};
    parallel_for(p.channels, Loops<d>::weight_channel, &context);
  }
};

void forward(const Problem& p, const ConstMap& x, const void* weight, const void* bias, bool flip,
             const Map& out, ParallelFor parallel_for) {
  for_dtype<Forward>(p.dtype, p, x, weight, bias, flip, out, parallel_for);
}

void backward_weight(const Problem& p, const ConstMap& grad_output, const ConstMap& x,
                     void* grad_weight, ParallelFor parallel_for) {
  for_dtype<BackwardWeight>(p.dtype, p, grad_output, x, grad_weight, parallel_for);
}

}  // namespace

const Kernels& kernels_portable() {
  static const Kernels kernels{forward, backward_weight};
  return kernels;
}

}  // namespace unireplknet
