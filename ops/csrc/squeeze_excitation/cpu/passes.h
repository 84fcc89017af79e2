// Squeeze-and-Excitation's factor: the mean of each channel, two small products, in float
// throughout.
//
//   factor = sigmoid(W2 relu(W1 mean + b1) + b2)
//
// Three phases, each in tasks whose split depends on the shape only, so that results do not depend
// on the threads: sums over chunks of an image's positions, rows of the first product, rows of the
// second. kLanes rows of a product are summed side by side and then transposed.
#pragma once

#include "../../cpu/memory.h"
#include "../../cpu/tasks.h"
#include "kernels.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

constexpr int64_t kLanes = Float::kLanes;
constexpr int64_t kChunkPositions = 256;      // more would add up rounding
constexpr int64_t kSumVectors = 4;            // in registers while the positions go by
constexpr int64_t kTaskProducts = 128 << 10;  // multiplications, for one thread

template <class T>
class SqueezeExcitationRun {
 public:
  SqueezeExcitationRun(const SqueezeExcitation& problem, ParallelFor parallel_for)
      : problem_(problem),
        parallel_for_(parallel_for),
        padded_(ceil_div(problem.channels, kLanes) * kLanes),
        padded_squeezed_(ceil_div(problem.squeezed, kLanes) * kLanes),
        chunks_{problem.positions, ceil_div(problem.positions, kChunkPositions)},
        groups1_(split(problem.squeezed)),
        groups2_(split(problem.channels)),
        sums_(problem.batch * chunks_.parts * padded_),
        means_(problem.batch * padded_),
        squeezed_(problem.batch * padded_squeezed_) {}

  void run() {
    run_tasks(parallel_for_, problem_.batch * chunks_.parts, this, &SqueezeExcitationRun::sum);
    for (int64_t n = 0; n < problem_.batch; ++n) take_mean(n);
    run_tasks(parallel_for_, problem_.batch * groups1_.parts, this, &SqueezeExcitationRun::squeeze);
    run_tasks(parallel_for_, problem_.batch * groups2_.parts, this, &SqueezeExcitationRun::excite);
  }

 private:
  // The rows of a weight in groups of kLanes, and these in tasks.
  Split split(int64_t rows) const {
    const int64_t groups = ceil_div(rows, kLanes);
    return {groups,
            minimum(groups, ceil_div(problem_.channels * problem_.squeezed, kTaskProducts))};
  }

  void sum(int64_t task) {
    const int64_t image = task / chunks_.parts, chunk = task % chunks_.parts;
    const int64_t begin = chunks_.begin(chunk), count = chunks_.begin(chunk + 1) - begin;
    const T* x = static_cast<const T*>(problem_.x) +
                 (image * problem_.positions + begin) * problem_.channels;
    float* sums = sums_.get() + task * padded_;
    int64_t c = 0;
    for (; c + kSumVectors * kLanes <= problem_.channels; c += kSumVectors * kLanes)
      add_up<kSumVectors>(x + c, count, sums + c);
    for (; c + kLanes <= problem_.channels; c += kLanes) add_up<1>(x + c, count, sums + c);
    if (c < problem_.channels) {
      const int rest = static_cast<int>(problem_.channels - c);
      Float total = Float::zero();
      for (int64_t p = 0; p < count; ++p)
        total = total.plus(Float::load_partial(x + c + p * problem_.channels, rest));
      total.store(sums + c);
    }
  }

  template <int kVectors>
  void add_up(const T* x, int64_t count, float* sums) const {
    Float totals[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) totals[v] = Float::zero();
    for (int64_t p = 0; p < count; ++p)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        totals[v] = totals[v].plus(Float::load_unaligned(x + p * problem_.channels + v * kLanes));
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) totals[v].store(sums + v * kLanes);
  }

  void take_mean(int64_t image) {
    const float* sums = sums_.get() + image * chunks_.parts * padded_;
    float* means = means_.get() + image * padded_;
    for (int64_t c = 0; c < problem_.channels; ++c) {
      double total = 0;
      for (int64_t i = 0; i < chunks_.parts; ++i) total += sums[i * padded_ + c];
      means[c] = static_cast<float>(total / static_cast<double>(problem_.positions));
    }
    for (int64_t c = problem_.channels; c < padded_; ++c) means[c] = 0;
  }

  void squeeze(int64_t task) {
    const int64_t image = task / groups1_.parts, part = task % groups1_.parts;
    float* to = squeezed_.get() + image * padded_squeezed_;
    for (int64_t group = groups1_.begin(part); group < groups1_.begin(part + 1); ++group)
      product(problem_.weight1, problem_.squeezed, problem_.channels, problem_.bias1,
              group * kLanes, means_.get() + image * padded_)
          .at_least(Float::zero())
          .store(to + group * kLanes);
  }

  void excite(int64_t task) {
    const int64_t image = task / groups2_.parts, part = task % groups2_.parts;
    float* to = problem_.factor + image * problem_.channels;
    float values[kLanes] __attribute__((aligned(kAlignment)));
    for (int64_t group = groups2_.begin(part); group < groups2_.begin(part + 1); ++group) {
      const int64_t row = group * kLanes;
      product(problem_.weight2, problem_.channels, problem_.squeezed, problem_.bias2, row,
              squeezed_.get() + image * padded_squeezed_)
          .store(values);
      for (int64_t l = 0; l < minimum(kLanes, problem_.channels - row); ++l)
        to[row + l] = 1 / (1 + __builtin_expf(-values[l]));
    }
  }

  // kLanes rows of a weight (rows, columns) from `row` on times a vector, which is padded with
  // zeros, plus their bias; zero for rows that are missing.
  static Float product(const void* weight, int64_t rows, int64_t columns, const void* bias,
                       int64_t row, const float* vector) {
    const T* numbers = static_cast<const T*>(weight) + row * columns;
    const int count = static_cast<int>(minimum(kLanes, rows - row));
    Float sums[kLanes];
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) sums[l] = Float::zero();
    int64_t c = 0;
    if (count == kLanes) {
      for (; c + kLanes <= columns; c += kLanes) {
        const Float factor = Float::load(vector + c);
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; ++l)
          sums[l].multiply_add(Float::load_unaligned(numbers + l * columns + c), factor);
      }
    }
    for (; c < columns; c += kLanes) {
      const int some = static_cast<int>(minimum(kLanes, columns - c));
      const Float factor = Float::load(vector + c);
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l)
        if (l < count)
          sums[l].multiply_add(Float::load_partial(numbers + l * columns + c, some), factor);
    }
    Float::transpose(sums);
    Float total =
        bias ? Float::load_partial(static_cast<const T*>(bias) + row, count) : Float::zero();
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) total = total.plus(sums[l]);
    return total;
  }

  const SqueezeExcitation& problem_;
  const ParallelFor parallel_for_;
  const int64_t padded_, padded_squeezed_;  // to whole vectors
  const Split chunks_;                      // of an image's positions
  const Split groups1_, groups2_;           // of the weights' rows
  const Buffer<float> sums_, means_, squeezed_;
};

inline void squeeze_excitation(const SqueezeExcitation& problem, ParallelFor parallel_for) {
  switch (problem.dtype) {
    case DType::kFloat16:
      return SqueezeExcitationRun<Half>(problem, parallel_for).run();
    case DType::kBFloat16:
      return SqueezeExcitationRun<BFloat16>(problem, parallel_for).run();
    default:
      return SqueezeExcitationRun<float>(problem, parallel_for).run();
  }
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
