// GELU and Global Response Normalization in two passes over an image, forward and backward.
//
// An image's norms must be known before any of its outputs, so everything is read twice: the first
// pass takes sums over positions, the second writes. Images go through in groups that stay in the
// cache between the two. The first leaves GELU where the second writes its result; in 16 bits, to
// which it would be rounded, both compute it.
// With h = GELU(x + bias), g the norms of h, m = mean of g + 1e-6, r = g / m and dy the gradient:
//
//   y = h a + beta,            a = 1 + gamma r
//   dx = (dy a + h b) GELU'(x + bias),   b = dg / g or 0, where
//   dg = dr / m - sum(dr g) / (channels m^2),   dr = gamma P,   P = sum of dy h over positions
//   dbias = sum of dx,   dgamma = sum of r P over images,   dbeta = sum of dy
//
// A task is a chunk of an image's rows, one position each. The split depends on the shape only, so
// that results do not depend on the threads. Sums are of float within a chunk, of double beyond.
#pragma once

#include "../../cpu/gelu.h"
#include "../../cpu/memory.h"
#include "../../cpu/tasks.h"
#include "kernels.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

constexpr int64_t kLanes = Float::kLanes;
constexpr int64_t kChunkElements = 32 << 10;
constexpr int64_t kChunkRows = 256;       // more would add up rounding
constexpr int64_t kGroupBytes = 8 << 20;  // of all maps of a group
constexpr int64_t kSumChannels = 64;      // of a task that adds images up

// kLanes channels of a row, or the last ones.
struct Whole {
  template <class T>
  UNIREPLKNET_INLINE Float load(const T* p) const {
    return Float::load_unaligned(p);
  }
  template <class T>
  UNIREPLKNET_INLINE void store(Float value, T* p) const {
    value.store_unaligned(p);
  }
};
struct Part {
  int count;
  template <class T>
  UNIREPLKNET_INLINE Float load(const T* p) const {
    return Float::load_partial(p, count);
  }
  template <class T>
  UNIREPLKNET_INLINE void store(Float value, T* p) const {
    value.store_partial(p, count);
  }
};

template <class F>
UNIREPLKNET_INLINE void over_channels(int64_t channels, F&& f) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) f(c, Whole{});
  if (c < channels) f(c, Part{static_cast<int>(channels - c)});
}

template <class T>
constexpr bool kKeepsGelu = sizeof(T) == sizeof(float);

UNIREPLKNET_INLINE void add(Float value, float* sums) { Float::load(sums).plus(value).store(sums); }

// What both directions share: the sizes, and how they are cut.
template <class Problem>
struct Cut {
  Cut(const Problem& problem, int64_t maps, int64_t element_bytes)
      : positions(problem.positions),
        channels(problem.channels),
        padded(ceil_div(channels, kLanes) * kLanes),
        chunks{positions,
               ceil_div(positions, minimum(kChunkRows, maximum(1, kChunkElements / channels)))},
        group(minimum(problem.batch,
                      maximum(1, kGroupBytes / (maps * positions * channels * element_bytes)))),
        bias(padded) {
    for (int64_t c = 0; c < padded; ++c)
      bias.get()[c] = problem.bias && c < channels ? problem.bias[c] : 0;
  }

  // The mean of an image's norms + 1e-6.
  float divisor(const float* norm) const {
    double total = 0;
    for (int64_t c = 0; c < channels; ++c) total += norm[c];
    return static_cast<float>(total / static_cast<double>(channels)) + 1e-6f;
  }

  // The sum of one channel over an image's chunks; those of a chunk follow after stride floats.
  double over_chunks(const float* partial, int64_t stride) const {
    double sum = 0;
    for (int64_t i = 0; i < chunks.parts; ++i) sum += partial[i * stride];
    return sum;
  }

  const int64_t positions, channels;
  const int64_t padded;  // channels, to whole vectors
  const Split chunks;    // of an image's rows
  const int64_t group;   // images
  const Buffer<float> bias;
};

// calls row(index of its first element) for the rows of a task, and has the sums' padding zeroed.
template <class Problem, class F>
UNIREPLKNET_INLINE void over_rows(const Cut<Problem>& cut, int64_t image, int64_t chunk, F&& row) {
  for (int64_t p = cut.chunks.begin(chunk); p < cut.chunks.begin(chunk + 1); ++p)
    row((image * cut.positions + p) * cut.channels);
}

template <class Error, class T>
class GeluGrnRun {
 public:
  GeluGrnRun(const GeluGrn& problem, ParallelFor parallel_for)
      : problem_(problem),
        parallel_for_(parallel_for),
        cut_(problem, 2, sizeof(T)),
        squares_(cut_.group * cut_.chunks.parts * cut_.padded),
        factors_(cut_.group * cut_.padded),
        beta_(cut_.padded) {
    for (int64_t c = 0; c < cut_.padded; ++c)
      beta_.get()[c] = problem.beta && c < cut_.channels ? problem.beta[c] : 0;
  }

  void run() {
    for (first_ = 0; first_ < problem_.batch; first_ += cut_.group) {
      const int64_t images = minimum(cut_.group, problem_.batch - first_);
      run_tasks(parallel_for_, images * cut_.chunks.parts, this, &GeluGrnRun::sum_squares);
      run_tasks(parallel_for_, images, this, &GeluGrnRun::normalize);
      run_tasks(parallel_for_, images * cut_.chunks.parts, this, &GeluGrnRun::scale);
    }
  }

 private:
  void sum_squares(int64_t task) {
    const T* x = static_cast<const T*>(problem_.x);
    T* output = static_cast<T*>(problem_.output);
    float* squares = squares_.get() + task * cut_.padded;
    const float* bias = cut_.bias.get();
    for (int64_t c = 0; c < cut_.padded; ++c) squares[c] = 0;
    over_rows(cut_, first_ + task / cut_.chunks.parts, task % cut_.chunks.parts, [&](int64_t row) {
      over_channels(cut_.channels, [&](int64_t c, auto piece) {
        const Float input = piece.load(x + row + c).plus(Float::load(bias + c));
        Float square = nan_of_minus_infinity(input);
        const Float h = gelu<Error>(input);
        if constexpr (kKeepsGelu<T>) piece.store(h, output + row + c);
        square.multiply_add(h, h);
        add(square, squares + c);
      });
    });
  }

  void normalize(int64_t image) {
    const float* squares = squares_.get() + image * cut_.chunks.parts * cut_.padded;
    float* norm = problem_.norm + (first_ + image) * cut_.channels;
    for (int64_t c = 0; c < cut_.channels; ++c)
      norm[c] = static_cast<float>(__builtin_sqrt(cut_.over_chunks(squares + c, cut_.padded)));
    const float divisor = cut_.divisor(norm);
    float* factors = factors_.get() + image * cut_.padded;
    for (int64_t c = 0; c < cut_.channels; ++c)
      factors[c] = problem_.gamma[c] * (norm[c] / divisor) + 1;
    for (int64_t c = cut_.channels; c < cut_.padded; ++c) factors[c] = 0;
  }

  void scale(int64_t task) {
    const int64_t image = task / cut_.chunks.parts;
    const T* x = static_cast<const T*>(problem_.x);
    T* output = static_cast<T*>(problem_.output);
    const float *bias = cut_.bias.get(), *beta = beta_.get();
    const float* factors = factors_.get() + image * cut_.padded;
    over_rows(cut_, first_ + image, task % cut_.chunks.parts, [&](int64_t row) {
      over_channels(cut_.channels, [&](int64_t c, auto piece) {
        Float h;
        if constexpr (kKeepsGelu<T>) {
          h = piece.load(output + row + c);
        } else {
          h = gelu<Error>(piece.load(x + row + c).plus(Float::load(bias + c)));
        }
        Float y = Float::load(beta + c);
        y.multiply_add(h, Float::load(factors + c));
        piece.store(y, output + row + c);
      });
    });
  }

  const GeluGrn& problem_;
  const ParallelFor parallel_for_;
  const Cut<GeluGrn> cut_;
  Buffer<float> squares_, factors_, beta_;
  int64_t first_ = 0;  // image of the group
};

template <class Error, class T>
class GeluGrnBackwardRun {
 public:
  GeluGrnBackwardRun(const GeluGrnBackward& problem, ParallelFor parallel_for)
      : problem_(problem),
        parallel_for_(parallel_for),
        cut_(problem, 3, sizeof(T)),
        partial_(cut_.group * cut_.chunks.parts * 2 * cut_.padded),
        factors_(cut_.group * 2 * cut_.padded),
        of_images_(problem.batch * 3 * cut_.padded) {}

  void run() {
    for (first_ = 0; first_ < problem_.batch; first_ += cut_.group) {
      const int64_t images = minimum(cut_.group, problem_.batch - first_);
      run_tasks(parallel_for_, images * cut_.chunks.parts, this, &GeluGrnBackwardRun::sum_products);
      run_tasks(parallel_for_, images, this, &GeluGrnBackwardRun::differentiate_norm);
      run_tasks(parallel_for_, images * cut_.chunks.parts, this, &GeluGrnBackwardRun::write);
      run_tasks(parallel_for_, images, this, &GeluGrnBackwardRun::sum_bias);
    }
    run_tasks(parallel_for_, ceil_div(cut_.channels, kSumChannels), this,
              &GeluGrnBackwardRun::sum_images);
  }

 private:
  void sum_products(int64_t task) {
    const T* x = static_cast<const T*>(problem_.x);
    const T* grad = static_cast<const T*>(problem_.grad_output);
    T* grad_x = static_cast<T*>(problem_.grad_x);
    const float* bias = cut_.bias.get();
    float* products = partial_.get() + task * 2 * cut_.padded;
    float* sums = products + cut_.padded;
    for (int64_t c = 0; c < 2 * cut_.padded; ++c) products[c] = 0;
    over_rows(cut_, first_ + task / cut_.chunks.parts, task % cut_.chunks.parts, [&](int64_t row) {
      over_channels(cut_.channels, [&](int64_t c, auto piece) {
        const Float dy = piece.load(grad + row + c);
        const Float h = gelu<Error>(piece.load(x + row + c).plus(Float::load(bias + c)));
        if constexpr (kKeepsGelu<T>) piece.store(h, grad_x + row + c);
        add(dy.times(h), products + c);
        add(dy, sums + c);
      });
    });
  }

  void differentiate_norm(int64_t image) {
    const int64_t stride = 2 * cut_.padded, channels = cut_.channels;
    const float* products = partial_.get() + image * cut_.chunks.parts * stride;
    const float* norm = problem_.norm + (first_ + image) * channels;
    const double divisor = cut_.divisor(norm);
    float* of_gamma = of_images_.get() + (first_ + image) * 3 * cut_.padded;
    float* of_beta = of_gamma + cut_.padded;
    float* of_output = factors_.get() + image * stride;  // a and b
    float* of_hidden = of_output + cut_.padded;
    double dot = 0;
    for (int64_t c = 0; c < channels; ++c) {
      const double product = cut_.over_chunks(products + c, stride);
      const double response = norm[c] / divisor;
      const double grad_response = problem_.gamma[c] * product;
      of_gamma[c] = static_cast<float>(response * product);
      of_beta[c] = static_cast<float>(cut_.over_chunks(products + cut_.padded + c, stride));
      of_output[c] = static_cast<float>(1 + problem_.gamma[c] * response);
      of_hidden[c] = static_cast<float>(grad_response / divisor);
      dot += grad_response * norm[c];
    }
    const double of_mean = dot / (static_cast<double>(channels) * divisor * divisor);
    for (int64_t c = 0; c < channels; ++c)
      of_hidden[c] = norm[c] > 0 ? static_cast<float>((of_hidden[c] - of_mean) / norm[c]) : norm[c];
    for (int64_t c = channels; c < cut_.padded; ++c) of_output[c] = of_hidden[c] = 0;
  }

  void write(int64_t task) {
    const int64_t image = task / cut_.chunks.parts;
    const T* x = static_cast<const T*>(problem_.x);
    const T* grad = static_cast<const T*>(problem_.grad_output);
    T* grad_x = static_cast<T*>(problem_.grad_x);
    const float* bias = cut_.bias.get();
    const float* of_output = factors_.get() + image * 2 * cut_.padded;
    const float* of_hidden = of_output + cut_.padded;
    float* sums = partial_.get() + task * 2 * cut_.padded;
    for (int64_t c = 0; c < cut_.padded; ++c) sums[c] = 0;
    over_rows(cut_, first_ + image, task % cut_.chunks.parts, [&](int64_t row) {
      over_channels(cut_.channels, [&](int64_t c, auto piece) {
        const Float input = piece.load(x + row + c).plus(Float::load(bias + c));
        Float h;
        if constexpr (kKeepsGelu<T>) {
          h = piece.load(grad_x + row + c);
        } else {
          h = gelu<Error>(input);
        }
        Float value = piece.load(grad + row + c).times(Float::load(of_output + c));
        value.multiply_add(h, Float::load(of_hidden + c));
        value = value.times(gelu_derivative<Error>(input));
        add(value, sums + c);
        piece.store(value, grad_x + row + c);
      });
    });
  }

  void sum_bias(int64_t image) {
    const int64_t stride = 2 * cut_.padded;
    const float* sums = partial_.get() + image * cut_.chunks.parts * stride;
    float* of_bias = of_images_.get() + ((first_ + image) * 3 + 2) * cut_.padded;
    for (int64_t c = 0; c < cut_.channels; ++c)
      of_bias[c] = static_cast<float>(cut_.over_chunks(sums + c, stride));
  }

  void sum_images(int64_t task) {
    const int64_t end = minimum(cut_.channels, (task + 1) * kSumChannels);
    float* const results[] = {problem_.grad_gamma, problem_.grad_beta, problem_.grad_bias};
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t c = task * kSumChannels; c < end; ++c) {
        double sum = 0;
        for (int64_t n = 0; n < problem_.batch; ++n)
          sum += of_images_.get()[(n * 3 + i) * cut_.padded + c];
        results[i][c] = static_cast<float>(sum);
      }
  }

  const GeluGrnBackward& problem_;
  const ParallelFor parallel_for_;
  const Cut<GeluGrnBackward> cut_;
  Buffer<float> partial_;    // [image of the group][chunk][2][channel]
  Buffer<float> factors_;    // [image of the group][2][channel]
  Buffer<float> of_images_;  // gradients of gamma, beta and bias: [image][3][channel]
  int64_t first_ = 0;        // image of the group
};

inline void gelu_grn(const GeluGrn& problem, ParallelFor parallel_for) {
  switch (problem.dtype) {
    case DType::kFloat16:
      return GeluGrnRun<ErrorOfFloat32, Half>(problem, parallel_for).run();
    case DType::kBFloat16:
      return GeluGrnRun<ErrorOfBFloat16, BFloat16>(problem, parallel_for).run();
    default:
      return GeluGrnRun<ErrorOfFloat32, float>(problem, parallel_for).run();
  }
}

inline void gelu_grn_backward(const GeluGrnBackward& problem, ParallelFor parallel_for) {
  switch (problem.dtype) {
    case DType::kFloat16:
      return GeluGrnBackwardRun<ErrorOfFloat32, Half>(problem, parallel_for).run();
    case DType::kBFloat16:
      return GeluGrnBackwardRun<ErrorOfBFloat16, BFloat16>(problem, parallel_for).run();
    default:
      return GeluGrnBackwardRun<ErrorOfFloat32, float>(problem, parallel_for).run();
  }
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
