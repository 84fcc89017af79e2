// The training form of the Dilated Reparam Block, y = sum over b of BN_b(conv_b(x)) with the
// statistics of the batch, and its gradients.
//
// A task is one vector of channels of all images. It packs x (pack.h), convolves it with every
// branch's filter into buffers that the cache holds, takes their statistics there and adds them up;
// of what is as large as a map, only y leaves it. Backward computes the branches' outputs z_b
// again, centred, and then with M positions in all images
//
//   grad_shift_b = sum of g                     g: the gradient by y
//   grad_scale_b = sum of g * n_b               n_b = (z_b - mean_b) / deviation_b
//   gz_b         = scale_b / deviation_b * (g - grad_shift_b / M - n_b * grad_scale_b / M)
//   grad_x       = sum over b of gz_b convolved with the turned filter b
//   grad_weight_b by the sums of depthwise_conv2d (tap_sums.h), of gz_b and x.
//
// Where the buffers of all images would take more than kKeptBytes, those of a few images are held
// at a time. After the statistics, backward computes the branches once more, and forward one
// convolution with the filter into which they merge.
//
// The K x K branch runs on the tiles of depthwise_conv2d (tile.h), the others on those of
// tap_tile.h. 16-bit maps are computed in float32.
#pragma once

#include "../../cpu/memory.h"
#include "../../cpu/pack.h"
#include "../../cpu/vector.h"
#include "../../depthwise_conv2d/cpu/backward_weight.h"
#include "../../depthwise_conv2d/cpu/filter.h"
#include "../../depthwise_conv2d/cpu/tap_sums.h"
#include "../../depthwise_conv2d/cpu/tile.h"
#include "kernels.h"
#include "tap_tile.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// N sums over vectors, lane by lane: in float over short runs, these in double. total is [N][lane];
// term adds what the vector at an offset contributes.
template <int N, class F>
UNIREPLKNET_INLINE void sum_into(int64_t count, double* total, const F& term) {
  constexpr int64_t kRun = 128;
  constexpr int kParallel = 4;
  constexpr int L = Float::kLanes;
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t end = minimum(count, begin + kRun);
    Float sums[kParallel][N];
    for (int k = 0; k < kParallel; ++k)
      for (int n = 0; n < N; ++n) sums[k][n] = Float::zero();
    int64_t i = begin;
    for (; i + kParallel <= end; i += kParallel)
      for (int k = 0; k < kParallel; ++k) term(sums[k], (i + k) * L);
    for (; i < end; ++i) term(sums[0], i * L);
    for (int n = 0; n < N; ++n) {
      alignas(kAlignment) float lanes[L];
      sums[0][n].plus(sums[1][n]).plus(sums[2][n].plus(sums[3][n])).store(lanes);
      for (int l = 0; l < L; ++l) total[n * L + l] += static_cast<double>(lanes[l]);
    }
  }
}

template <class T>
class ChannelBlocks {
  using V = Float;
  using Dense = Tiles<Single<V>, false>;
  using Sums = TapSums<SingleColumn<V>>;
  static constexpr int64_t L = V::kLanes;

 public:
  static void forward(const DilatedReparam& p, const Map& out, ParallelFor parallel_for) {
    ChannelBlocks call(p, 0, p.branches, {nullptr, {}}, out);
    parallel_for(
        ceil_div(p.channels, L),
        [](int64_t task, void* context) {
          Task(*static_cast<const ChannelBlocks*>(context), task).forward();
        },
        &call);
  }

  static void backward(const DilatedReparam& p, const ConstMap& grad_output, const Map& grad_x,
                       ParallelFor parallel_for) {
    int64_t padding = 0;
    for (int64_t b = 0; b < p.branches; ++b) padding = maximum(padding, sums_of(p, b).padding());
    ChannelBlocks call(p, padding, p.branches + 1, grad_output, grad_x);
    parallel_for(
        ceil_div(p.channels, L),
        [](int64_t task, void* context) {
          Task(*static_cast<const ChannelBlocks*>(context), task).backward();
        },
        &call);
  }

 private:
  // What Scratch keeps between tasks, less what is small.
  static constexpr int64_t kKeptBytes = 7 << 20;
  // Of the images that are worked on at a time: half of a common second-level cache.
  static constexpr int64_t kGroupBytes = 512 << 10;

  ChannelBlocks(const DilatedReparam& p, int64_t padding, int64_t maps, const ConstMap& grad_output,
                const Map& out)
      : p(p),
        padding(padding),
        area(p.height * p.width),
        x_pitch(p.width + 2 * padding),
        maps(maps),
        grad_output(grad_output),
        out(out) {
    for (int64_t b = 0; b < p.branches; ++b) taps += p.branch[b].size * p.branch[b].size;
    const int64_t image = (p.height * x_pitch + maps * area) * L * sizeof(float);
    group = maximum(1, minimum(p.batch, kGroupBytes / image));
    kept = image * p.batch <= kKeptBytes ? p.batch : group;
  }

  static Sums sums_of(const DilatedReparam& p, int64_t b) {
    return {p.branch[b].size, p.branch[b].size, p.branch[b].dilation, p.height, p.width};
  }

  bool is_dense(int64_t b) const {
    return b == 0 && p.branch[0].dilation == 1 && p.branch[0].size > 5;
  }

  // Whether the first branch covers all others.
  bool merges() const {
    for (int64_t b = 1; b < p.branches; ++b)
      if ((p.branch[b].size - 1) * p.branch[b].dilation >= p.branch[0].size) return false;
    return is_dense(0);
  }

  const DilatedReparam& p;
  const int64_t padding;  // columns beside the packed x
  const int64_t area, x_pitch, maps;
  const ConstMap grad_output;
  const Map out;
  int64_t taps = 0;     // of all branches
  int64_t group, kept;  // images worked on at a time, images whose buffers there are

  class Task {
   public:
    Task(const ChannelBlocks& call, int64_t task)
        : c(call),
          p(call.p),
          channel(task * L),
          channels(static_cast<int>(minimum(L, call.p.channels - task * L))),
          scratch(scratch_bytes(call)),
          x(take(call.kept * call.p.height * call.x_pitch)),
          z(take(call.kept * call.maps * call.area)),
          weight(take(call.taps + call.p.branches)),
          turned(take(call.taps + call.p.branches)),
          grad_weight(take(call.taps)),
          bias(take(call.p.branches)),
          factor(take(call.p.branches)),
          slope(take(call.p.branches)),
          offset(take(call.p.branches)),
          zero(take(1)),
          total(scratch.template take<double>(2 * call.p.branches * L)),
          taps(scratch.template take<Taps>(call.p.branches)) {
      clear_sums();
      fill_zero<V>(zero, 1);
    }

    void forward() {
      pack_weights(false, weight);
      pack_x(0, 1);
      for (int64_t b = 0; b < p.branches; ++b) convolve_centre(b);
      take_sums();
      if (!is_centred()) {
        centre_at_mean();
        clear_sums();
        take_sums();
      }
      finish_statistics();
      for (int64_t n = 0; n < p.batch; n += c.group) {
        const int64_t images = minimum(c.group, p.batch - n);
        if (is_kept()) {
          add_up(n, images);
        } else if (c.merges()) {
          if (n == 0) merge();
          pack_x(n, images);
          for (int64_t i = n; i < n + images; ++i)
            run_dense(plane(x_of(i), c.x_pitch, turned, bias), map(0, i));
        } else {
          convolve(n, images);
          add_up(n, images);
        }
        write(map(0, n), n, images);
      }
    }

    void backward() {
      pack_weights(false, weight);
      pack_weights(true, turned);
      fill_zero<V>(grad_weight, c.taps);
      for (int64_t b = 0; b < p.branches; ++b)
        for (int l = 0; l < L; ++l)
          bias[b * L + l] = l < channels ? -p.branch[b].mean[channel + l] : 0;
      for (int64_t n = 0; n < p.batch; n += c.group) {
        const int64_t images = minimum(c.group, p.batch - n);
        convolve(n, images);
        pack_grad_output(n, images);
        const float* g = map(p.branches, n);
        sum_into<1>(images * c.area, square(0),
                    [&](V(&sums)[1], int64_t i)
                        __attribute__((always_inline)) { sums[0] = sums[0].plus(V::load(g + i)); });
        for (int64_t b = 0; b < p.branches; ++b) {
          const float* from = map(b, n);
          sum_into<1>(images * c.area, sum(b),
                      [&](V(&sums)[1], int64_t i) __attribute__((always_inline)) {
                        sums[0].multiply_add(V::load(from + i), V::load(g + i));
                      });
        }
      }
      finish_gradients();
      for (int64_t n = 0; n < p.batch; n += c.group) {
        const int64_t images = minimum(c.group, p.batch - n);
        if (!is_kept()) {
          convolve(n, images);
          pack_grad_output(n, images);
        }
        for (int64_t b = 0; b < p.branches; ++b) to_gradient(b, n, images);
        add_grad_weights(n, images);
        convolve_turned(n, images);
        write(map(p.branches, n), n, images);
      }
      write_grad_weights();
    }

   private:
    static int64_t scratch_bytes(const ChannelBlocks& c) {
      const int64_t vectors =
          c.kept * (c.p.height * c.x_pitch + c.maps * c.area) + 3 * c.taps + 10 * c.p.branches;
      const int64_t floats = vectors * L + 16 * kAlignment;
      return floats * static_cast<int64_t>(sizeof(float)) +
             c.p.branches * static_cast<int64_t>(sizeof(Taps));
    }
    float* take(int64_t vectors) { return scratch.template take<float>(vectors * L); }

    bool is_kept() const { return c.kept == p.batch; }
    int64_t slot(int64_t n) const { return is_kept() ? n : n % c.group; }
    // Image n of x; of map b: the branches' outputs and then, in backward, the gradient by y.
    float* x_of(int64_t n) const { return x + slot(n) * p.height * c.x_pitch * L; }
    float* map(int64_t b, int64_t n) const { return z + (b * c.kept + slot(n)) * c.area * L; }
    double* sum(int64_t b) const { return total + 2 * b * L; }
    double* square(int64_t b) const { return total + (2 * b + 1) * L; }

    int64_t weight_offset(int64_t b) const {
      int64_t vectors = 0;
      for (int64_t i = 0; i < b; ++i) vectors += p.branch[i].size * p.branch[i].size + 1;
      return vectors * L;
    }

    void pack_weights(bool turn, float* to) const {
      for (int64_t b = 0; b < p.branches; ++b) {
        const ReparamBranch& branch = p.branch[b];
        float* packed = to + weight_offset(b);
        const int64_t size = branch.size, taps = size * size;
        if (c.is_dense(b)) {
          filter(turn).pack_channels(channel, channels, packed);
        } else {
          const float* from = branch.weight + channel * taps + (turn ? taps - 1 : 0);
          const int64_t sign = turn ? -1 : 1;
          pack<V>(from, Strides{0, taps, sign, sign * size}, channels, size, size, nullptr, packed,
                  size);
        }
      }
    }

    Filter<Single<V>, float> filter(bool turn) const {
      const int64_t size = p.branch[0].size;
      return {{p.batch, p.channels, p.height, p.width, size, size, 1, p.dtype},
              p.branch[0].weight,
              nullptr,
              turn};
    }

    void pack_x(int64_t n, int64_t images) const {
      const Strides& s = p.x.strides;
      for (int64_t i = n; i < n + images; ++i)
        SingleColumn<V>::pack(static_cast<const T*>(p.x.data) + i * s.n + channel * s.c, s,
                              channels, p.height, -c.padding, p.width + c.padding, p.width, 1,
                              x_of(i));
    }

    void pack_grad_output(int64_t n, int64_t images) const {
      const Strides& s = c.grad_output.strides;
      for (int64_t i = n; i < n + images; ++i)
        pack<V>(static_cast<const T*>(c.grad_output.data) + i * s.n + channel * s.c, s, channels,
                p.height, p.width, nullptr, map(p.branches, i), p.width);
    }

    void write(const float* from, int64_t n, int64_t images) const {
      const Strides& s = c.out.strides;
      for (int64_t i = 0; i < images; ++i)
        unpack<V>(from + i * c.area * L, p.width, nullptr, channels, p.height, p.width,
                  static_cast<T*>(c.out.data) + (n + i) * s.n + channel * s.c, s);
    }

    // The dense branch: the tile of rows [row0, row1) and columns [column0, column0 + columns).
    Plane<float> plane(const float* data, int64_t pitch, const float* filter_data,
                       const float* start) const {
      const Filter<Single<V>, float> shape = filter(false);
      Plane<float> plane{};
      plane.x = data;
      plane.x_row = pitch * L;
      plane.rows = p.height;
      plane.columns = p.width;
      plane.weight = filter_data;
      plane.kernel_height = shape.height;
      plane.kernel_width = shape.width;
      plane.steps = shape.steps;
      plane.bias = start;
      plane.out_row = p.width * L;
      plane.out_column = L;
      return plane;
    }

    void run_dense(const Plane<float>& plane, float* to) const {
      const int64_t tiles = ceil_div(p.height, minimum(Dense::kMaxRows, plane.kernel_height));
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t begin = p.height * tile / tiles, end = p.height * (tile + 1) / tiles;
        Dense::run(plane, begin, end, 0, p.width, to + begin * plane.out_row);
      }
    }

    Taps taps_of(int64_t b, const float* from, int64_t pitch, const float* weights) const {
      return {from,
              pitch * L,
              p.height * pitch * L,
              weights + weight_offset(b),
              p.branch[b].size,
              p.branch[b].dilation};
    }

    // bias = -z at the centre of the first image, so that the sums of squares lose nothing.
    void convolve_centre(int64_t b) const {
      const float* from = x_of(0) + c.padding * L;
      const int64_t row = p.height / 2, column = p.width / 2;
      float* to = map(b, 0);
      if (c.is_dense(b)) {
        Dense::run(plane(from, c.x_pitch, weight + weight_offset(b), zero), row, row + 1, column, 1,
                   to);
      } else {
        const Taps taps = taps_of(b, from, c.x_pitch, weight);
        TapTile<1, 1>::run(&taps, 1, p.height, p.width, row, column, zero, to, 0);
      }
      V centre = V::zero();
      centre.multiply_add(V::load(to), V::broadcast(-1));
      centre.store(bias + b * L);
    }

    // z_b + bias_b of all branches.
    void convolve(int64_t n, int64_t images) const {
      pack_x(n, images);
      for (int64_t b = 0; b < p.branches; ++b) {
        if (c.is_dense(b)) {
          for (int64_t i = n; i < n + images; ++i)
            run_dense(
                plane(x_of(i) + c.padding * L, c.x_pitch, weight + weight_offset(b), bias + b * L),
                map(b, i));
          continue;
        }
        for (int64_t i = n; i < n + images; i += TapTiles::kMaxMaps) {
          const Taps taps = taps_of(b, x_of(i) + c.padding * L, c.x_pitch, weight);
          run_taps(&taps, 1, minimum(TapTiles::kMaxMaps, n + images - i), p.height, p.width,
                   bias + b * L, map(b, i), c.area * L);
        }
      }
    }

    void clear_sums() const {
      for (int64_t i = 0; i < 2 * p.branches * L; ++i) total[i] = 0;
    }

    // Of z_b + bias_b and of its squares, over all images.
    void take_sums() const {
      for (int64_t n = 0; n < p.batch; n += c.group) {
        const int64_t images = minimum(c.group, p.batch - n);
        convolve(n, images);
        for (int64_t b = 0; b < p.branches; ++b) {
          const float* from = map(b, n);
          sum_into<2>(images * c.area, sum(b),
                      [&](V(&sums)[2], int64_t i) __attribute__((always_inline)) {
                        const V value = V::load(from + i);
                        sums[0] = sums[0].plus(value);
                        sums[1].multiply_add(value, value);
                      });
        }
      }
    }

    // Whether the squares, in float, tell every variance: not where the centre of the first image
    // is far from all other values, as in a map that is empty but there.
    bool is_centred() const {
      constexpr double kDeviations = 8;
      const double positions = static_cast<double>(p.batch * c.area);
      for (int64_t b = 0; b < p.branches; ++b)
        for (int l = 0; l < channels; ++l) {
          const double mean = sum(b)[l] / positions;
          const double var = square(b)[l] / positions - mean * mean;
          if (mean * mean > kDeviations * kDeviations * var) return false;  // not for NaN
        }
      return true;
    }

    void centre_at_mean() const {
      const double positions = static_cast<double>(p.batch * c.area);
      for (int64_t b = 0; b < p.branches; ++b)
        for (int l = 0; l < channels; ++l)
          bias[b * L + l] -= static_cast<float>(sum(b)[l] / positions);
    }

    void finish_statistics() const {
      const double positions = static_cast<double>(p.batch * c.area);
      for (int l = 0; l < L; ++l) {
        double start = 0;
        for (int64_t b = 0; b < p.branches; ++b) {
          const ReparamBranch& branch = p.branch[b];
          const double mean = sum(b)[l] / positions;
          const double raw = square(b)[l] / positions - mean * mean;
          const double var = raw < 0 ? 0 : raw;  // keeps NaN
          double scaled = 0;
          if (l < channels) {
            branch.mean[channel + l] = static_cast<float>(mean - bias[b * L + l]);
            branch.var[channel + l] = static_cast<float>(var);
            scaled = branch.scale[channel + l] / __builtin_sqrt(var + branch.eps);
            start += branch.shift[channel + l] - scaled * mean;
          }
          factor[b * L + l] = static_cast<float>(scaled);
        }
        offset[l] = static_cast<float>(start);
      }
    }

    // y, in the place of z_0.
    void add_up(int64_t n, int64_t images) const {
      constexpr int kParallel = 8;
      const int64_t vectors = images * c.area, from_branch = c.kept * c.area * L;
      float* to = map(0, n);
      for (int64_t i = 0; i < vectors; i += kParallel) {
        const int count = static_cast<int>(minimum(kParallel, vectors - i));
        V sum[kParallel];
        for (int k = 0; k < kParallel; ++k) sum[k] = V::load(offset);
        const float* from = to + i * L;
        for (int64_t b = 0; b < p.branches; ++b, from += from_branch) {
          const V scale = V::load(factor + b * L);
          if (count == kParallel) {
            for (int k = 0; k < kParallel; ++k) sum[k].multiply_add(V::load(from + k * L), scale);
          } else {
            for (int k = 0; k < count; ++k) sum[k].multiply_add(V::load(from + k * L), scale);
          }
        }
        for (int k = 0; k < count; ++k) sum[k].store(to + (i + k) * L);
      }
    }

    // The filter of y into `turned`, its bias into `bias`.
    void merge() const {
      const Filter<Single<V>, float> shape = filter(false);
      V start = V::load(offset);
      for (int64_t b = 0; b < p.branches; ++b)
        start.multiply_add(V::load(factor + b * L), V::load(bias + b * L));
      start.store(bias);
      fill_zero<V>(turned, shape.height * shape.width);
      for (int64_t b = 0; b < p.branches; ++b) {
        const bool is_dense = b == 0;
        const int64_t rows = is_dense ? shape.height : p.branch[b].size;
        const int64_t columns = is_dense ? shape.width : p.branch[b].size;
        const float* from = weight + weight_offset(b);
        const V scale = V::load(factor + b * L);
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < columns; ++j) {
            const int64_t row = shape.height / 2 + (i - rows / 2) * p.branch[b].dilation;
            const int64_t column = shape.width / 2 + (j - columns / 2) * p.branch[b].dilation;
            if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) continue;
            float* to = turned + (row * shape.width + column) * L;
            V sum = V::load(to);
            sum.multiply_add(V::load(from + (is_dense ? i * columns + j : j * rows + i) * L),
                             scale);
            sum.store(to);
          }
      }
    }

    void finish_gradients() const {
      const double positions = static_cast<double>(p.batch * c.area);
      for (int64_t b = 0; b < p.branches; ++b) {
        const ReparamBranch& branch = p.branch[b];
        for (int l = 0; l < L; ++l) {
          double scaled = 0, inverse = 0;
          const double product = sum(b)[l], grad_shift = square(0)[l];
          if (l < channels) {
            inverse = 1 / __builtin_sqrt(branch.var[channel + l] + branch.eps);
            scaled = branch.scale[channel + l] * inverse;
            branch.grad_scale[channel + l] = static_cast<float>(product * inverse);
            branch.grad_shift[channel + l] = static_cast<float>(grad_shift);
          }
          factor[b * L + l] = static_cast<float>(scaled);
          slope[b * L + l] = static_cast<float>(-scaled * inverse * inverse * product / positions);
          offset[b * L + l] = static_cast<float>(-scaled * grad_shift / positions);
        }
      }
    }

    // z_b - mean_b becomes the gradient by z_b.
    void to_gradient(int64_t b, int64_t n, int64_t images) const {
      const V scale = V::load(factor + b * L), by_z = V::load(slope + b * L);
      const V start = V::load(offset + b * L);
      const float* g = map(p.branches, n);
      float* to = map(b, n);
      for (int64_t i = 0; i < images * c.area * L; i += L) {
        V sum = start;
        sum.multiply_add(V::load(g + i), scale);
        sum.multiply_add(V::load(to + i), by_z);
        sum.store(to + i);
      }
    }

    void add_grad_weights(int64_t n, int64_t images) const {
      Block<float> of_x{};
      of_x.bottom = p.height;
      of_x.left = -c.padding;
      of_x.right = p.width + c.padding;
      of_x.data = x_of(n);
      of_x.row = c.x_pitch * L;
      of_x.column = L;
      of_x.images = images;
      of_x.image = p.height * of_x.row;
      Block<float> of_z{};
      of_z.bottom = p.height;
      of_z.right = p.width;
      of_z.row = p.width * L;
      of_z.column = L;
      of_z.images = images;
      of_z.image = c.area * L;
      float* sums = grad_weight;
      for (int64_t b = 0; b < p.branches; ++b) {
        of_z.data = map(b, n);
        sums_of(p, b).add(of_z, of_x, p.width, sums);
        sums += p.branch[b].size * p.branch[b].size * L;
      }
    }

    void write_grad_weights() const {
      const float* sums = grad_weight;
      for (int64_t b = 0; b < p.branches; ++b) {
        const int64_t taps = p.branch[b].size * p.branch[b].size;
        unpack<V>(sums, taps, nullptr, channels, 1, taps, p.branch[b].grad_weight + channel * taps,
                  Strides{0, taps, taps, 1});
        sums += taps * L;
      }
    }

    // The gradient by x, in the place of the gradient by y.
    void convolve_turned(int64_t n, int64_t images) const {
      const bool has_dense = c.is_dense(0);
      if (has_dense)
        for (int64_t i = n; i < n + images; ++i)
          run_dense(plane(map(0, i), p.width, turned, zero), map(p.branches, i));
      for (int64_t i = n; i < n + images; i += TapTiles::kMaxMaps) {
        for (int64_t b = has_dense; b < p.branches; ++b)
          taps[b] = taps_of(b, map(b, i), p.width, turned);
        run_taps(taps + has_dense, p.branches - has_dense,
                 minimum(TapTiles::kMaxMaps, n + images - i), p.height, p.width,
                 has_dense ? nullptr : zero, map(p.branches, i), c.area * L);
      }
    }

    const ChannelBlocks& c;
    const DilatedReparam& p;
    const int64_t channel;
    const int channels;
    Scratch scratch;
    float* const x;  // [image][row][padding, column, padding][lane]
    float* const z;  // [branch][image][row][column][lane], in backward a last map for gradients
    float* const weight;
    float* const turned;
    float* const grad_weight;
    // A vector a branch.
    float* const bias;
    float* const factor;
    float* const slope;
    float* const offset;
    float* const zero;
    double* const total;
    Taps* const taps;
  };
};

inline void reparam_forward(const DilatedReparam& p, const Map& out, ParallelFor parallel_for) {
  switch (p.dtype) {
    case DType::kFloat16:
      return ChannelBlocks<Half>::forward(p, out, parallel_for);
    case DType::kBFloat16:
      return ChannelBlocks<BFloat16>::forward(p, out, parallel_for);
    default:
      return ChannelBlocks<float>::forward(p, out, parallel_for);
  }
}

inline void reparam_backward(const DilatedReparam& p, const ConstMap& grad_output,
                             const Map& grad_x, ParallelFor parallel_for) {
  switch (p.dtype) {
    case DType::kFloat16:
      return ChannelBlocks<Half>::backward(p, grad_output, grad_x, parallel_for);
    case DType::kBFloat16:
      return ChannelBlocks<BFloat16>::backward(p, grad_output, grad_x, parallel_for);
    default:
      return ChannelBlocks<float>::backward(p, grad_output, grad_x, parallel_for);
  }
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
