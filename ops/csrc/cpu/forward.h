// The convolution, and with the filter turned its gradient by the input.
//
// Lanes are channels. A task packs the rows of x that it needs as [row][column][lane] (pack.h) and
// computes tiles of R rows x T columns of the output in R*T vector registers:
//
//   for each input row that a tile sees:                    rows outside the map do not exist
//     for each kernel column i:
//       load R weights, for the R kernel rows that meet the input row
//       for each of the T columns t: load x[t + i], R multiply-adds
//
// R*T multiply-adds need R+T loads (3x7: 0.48 loads each). No multiply-add is spent on padding: the
// first and last R-1 input rows are unrolled for the output rows that they reach, and so are the
// kernel columns for which a part of the tile's columns lies outside the map (the "triangles").
// Hence no padding is stored, a plane packs as one run of height*width columns, and a filter larger
// than 2*size-1 is cropped to that.
//
// Dilation d: a 'same' convolution of dilation d is d*d dense convolutions, one for each residue of
// (row, column) modulo d. Packing brings the columns of one residue together, and the core never
// sees the dilation.
//
// bfloat16 with AVX-512-BF16: an element is the pair (x[w], x[w+1]), a step is two kernel columns
// and vdpbf16ps the multiply-add (struct Pairs).
//
// The split into tasks, strips and tiles depends on the shape only.
#pragma once

#include <utility>

#include "kernels.h"
#include "pack.h"
#include "vector.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

// How an accumulator takes operands: kStep kernel columns at a time. A stored row of w columns
// begins and ends with kLead and kTrail vectors more.
template <class V>
struct Single {
  using Vector = V;
  static constexpr int kStep = 1, kLead = 0, kTrail = 0;
  static UNIREPLKNET_INLINE void multiply_add(V& sum, V x, V w) { sum.multiply_add(x, w); }
};

#if UNIREPLKNET_BFLOAT16_PAIRS
// Lane: bfloat16 x[p] in the lower half, x[p+1] in the upper. p = -1 and p = width - 1 have a zero
// half; one zero vector more at each end lets a step begin at any parity.
struct Pairs {
  using Vector = Float;
  static constexpr int kStep = 2, kLead = 2, kTrail = 1;
  static UNIREPLKNET_INLINE void multiply_add(Float& sum, Float x, Float w) {
    sum.v = _mm512_dpbf16_ps(sum.v, (__m512bh)x.v, (__m512bh)w.v);
  }
};
#endif

template <int N>
struct Constant {
  static constexpr int value = N;
};

template <class F, int... I>
UNIREPLKNET_INLINE void unroll_over(std::integer_sequence<int, I...>, F&& f) {
  (f(Constant<I>{}), ...);
}

// f(Constant<0>), ..., f(Constant<N - 1>).
template <int N, class F>
UNIREPLKNET_INLINE void unroll(F&& f) {
  unroll_over(std::make_integer_sequence<int, N>{}, f);
}

// One dense convolution in the packed layout. Rows and columns count from the first packed ones; a
// map that continues beyond them is packed as far as the outputs look.
template <class S>
struct Plane {
  const S* x;       // [rows][pitch][lane], pointing to the first vector stored of row 0
  int64_t x_pitch;  // vectors from row to row
  int64_t rows;
  int64_t stored;   // vectors stored in a row, lead and trail included
  const S* weight;  // [kernel_height][steps][lane]
  int64_t kernel_height, kernel_width, steps;
  const S* bias;  // one vector
};

template <class Math, int R, int T>
struct Tile {
  using V = typename Math::Vector;
  using S = typename V::Scalar;
  static constexpr int L = V::kLanes;
  static constexpr int kStep = Math::kStep;
  // In step m of a triangle, m * kStep of the T columns lie outside; m = 1 .. kTriangle.
  static constexpr int kTriangle = (T - 1) / kStep;

  // The steps over the kernel columns: those with columns before the map, all inside, behind it.
  struct Columns {
    int left, right;  // number of steps; their m falls from here to 1 (right ones go backwards)
    int64_t full;
    int64_t left_step, full_step, right_step;  // where each begins, in the filter ...
    int64_t left_x, full_x, right_x;           // ... and in the row, in vectors
  };

  // first: the stored vector, perhaps outside, that column 0 of the tile meets in step 0.
  static Columns divide(int64_t first, const Plane<S>& p) {
    Columns c{};
    int64_t step = 0;
    if (first < -kTriangle * kStep) step = ceil_div(-first - kTriangle * kStep, kStep);
    const int64_t before = -(first + step * kStep);
    if (before > 0) {
      c.left = static_cast<int>(ceil_div(before, kStep));
      c.left_step = step;
      c.left_x = c.left * kStep - before;
      step += c.left;
    }
    c.full_step = step;
    c.full_x = first + step * kStep;
    c.full = minimum(p.steps - step, (p.stored - T - c.full_x) / kStep + 1);
    step += c.full;
    c.right = static_cast<int>(minimum(p.steps - step, kTriangle));
    c.right_step = step + c.right - 1;
    c.right_x = first + c.right_step * kStep;
    return c;
  }

  // Columns [T0, T1) of the output rows [R0, R1): column T0 meets x, output row 0 the filter row w.
  template <int R0, int R1, int T0, int T1>
  static UNIREPLKNET_INLINE void step(V (&sum)[R][T], const S* x, const S* w, int64_t w_row) {
    V weight[R];
    unroll<R1 - R0>([&](auto i) __attribute__((always_inline)) {
      constexpr int r = R0 + decltype(i)::value;
      weight[r] = V::load(w - r * w_row);
    });
    unroll<T1 - T0>([&](auto i) __attribute__((always_inline)) {
      constexpr int t = decltype(i)::value;
      const V value = V::load(x + t * L);
      unroll<R1 - R0>([&](auto j) __attribute__((always_inline)) {
        constexpr int r = R0 + decltype(j)::value;
        Math::multiply_add(sum[r][T0 + t], value, weight[r]);
      });
    });
  }

  template <int R0, int R1>
  static UNIREPLKNET_INLINE void row(V (&sum)[R][T], const S* x, const S* w, int64_t w_row,
                                     const Columns& c) {
    if (c.left > 0) {
      const S* from = x + c.left_x * L;
      const S* tap = w + c.left_step * L;
      unroll<kTriangle>([&](auto i) __attribute__((always_inline)) {
        constexpr int m = kTriangle - decltype(i)::value;
        if (c.left >= m) {
          step<R0, R1, m * kStep, T>(sum, from, tap, w_row);
          tap += L;
        }
      });
    }
    {
      const S* from = x + c.full_x * L;
      const S* tap = w + c.full_step * L;
      for (int64_t i = c.full; i > 0; --i) {
        step<R0, R1, 0, T>(sum, from, tap, w_row);
        from += kStep * L;
        tap += L;
      }
    }
    if (c.right > 0) {
      const S* from = x + c.right_x * L;
      const S* tap = w + c.right_step * L;
      unroll<kTriangle>([&](auto i) __attribute__((always_inline)) {
        constexpr int m = kTriangle - decltype(i)::value;
        if (c.right >= m) {
          step<R0, R1, 0, T - m * kStep>(sum, from, tap, w_row);
          from -= kStep * L;
          tap -= L;
        }
      });
    }
  }

  // Output rows [row0, row0 + R) and columns [column0, column0 + T) into out, which points to the
  // first of them. Needs R <= kernel_height and T <= the width of the map.
  static void run(const Plane<S>& p, int64_t row0, int64_t column0, S* out, int64_t out_pitch) {
    V sum[R][T];
    const V bias = V::load(p.bias);
    unroll<R * T>([&](auto i) __attribute__((always_inline)) {
      constexpr int r = decltype(i)::value / T, t = decltype(i)::value % T;
      sum[r][t] = bias;
    });

    const Columns columns = divide(column0 - p.kernel_width / 2 + Math::kLead, p);
    const int64_t w_row = p.steps * L;
    const int64_t above = p.kernel_height / 2;
    int64_t y = maximum(0, row0 - above);
    const int64_t y_end = minimum(p.rows, row0 + R + above);
    int64_t k = y - row0 + above;  // the filter row with which input row y reaches output row row0
    const S* x = p.x + y * p.x_pitch * L;
    const S* w = p.weight + k * w_row;
    const auto next = [&]() __attribute__((always_inline)) {
      ++y;
      ++k;
      x += p.x_pitch * L;
      w += w_row;
    };
    unroll<R - 1>([&](auto i) __attribute__((always_inline)) {
      constexpr int last = decltype(i)::value;
      if (k == last && y < y_end) {
        row<0, last + 1>(sum, x, w, w_row, columns);
        next();
      }
    });
    while (k < p.kernel_height && y < y_end) {
      row<0, R>(sum, x, w, w_row, columns);
      next();
    }
    unroll<R - 1>([&](auto i) __attribute__((always_inline)) {
      constexpr int first = decltype(i)::value + 1;
      if (y < y_end) {
        row<first, R>(sum, x, w, w_row, columns);
        next();
      }
    });

    unroll<R * T>([&](auto i) __attribute__((always_inline)) {
      constexpr int r = decltype(i)::value / T, t = decltype(i)::value % T;
      sum[r][t].store(out + (r * out_pitch + t) * L);
    });
  }
};

// The tile sizes that are compiled: up to kMaxRows x kMaxColumns.
template <class Math>
struct Tiles {
  using S = typename Math::Vector::Scalar;
  using Run = void (*)(const Plane<S>&, int64_t, int64_t, S*, int64_t);
  static constexpr int kMaxRows = 3;
  static constexpr int kMaxColumns = Isa::kRegisters == 32 && sizeof(S) == 4 ? 8 : 4;

  static Run find(int rows, int columns) {
    static constexpr Table table = make(std::make_integer_sequence<int, kMaxRows * kMaxColumns>{});
    return table.run[(rows - 1) * kMaxColumns + columns - 1];
  }

 private:
  struct Table {
    Run run[kMaxRows * kMaxColumns];
  };
  template <int... I>
  static constexpr Table make(std::integer_sequence<int, I...>) {
    return {{Tile<Math, I / kMaxColumns + 1, I % kMaxColumns + 1>::run...}};
  }
};

// Memory that lives as long as one call.
template <class S>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_(static_cast<S*>(allocate_aligned(count * sizeof(S)))) {}
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  S* get() const { return data_; }

 private:
  S* data_;
};

// How a problem is divided; from the shape only.
struct Plan {
  int64_t lanes;
  int64_t kernel_height, kernel_width;  // of the filter as cropped to what a map can see
  int64_t crop_row, crop_column;        // where it begins in the whole filter
  int64_t steps;
  int64_t blocks;        // of channels
  int64_t phases;        // residues of rows and of columns, d or fewer
  int64_t plane_height;  // rows of the highest phase
  int64_t strip;         // output rows of a phase in a task ...
  int64_t strips;        // ... and how many such strips there are in the highest phase
  int64_t column_strip, column_strips;
  int64_t images_tasks;  // tasks of one image and channel block
};

template <class Math>
Plan make_plan(const Problem& p) {
  using V = typename Math::Vector;
  Plan plan{};
  plan.lanes = V::kLanes;
  const int64_t d = p.dilation;
  plan.plane_height = ceil_div(p.height, d);
  const int64_t plane_width = ceil_div(p.width, d);
  plan.kernel_height = minimum(p.kernel_height, 2 * plan.plane_height - 1);
  plan.kernel_width = minimum(p.kernel_width, 2 * plane_width - 1);
  plan.crop_row = (p.kernel_height - plan.kernel_height) / 2;
  plan.crop_column = (p.kernel_width - plan.kernel_width) / 2;
  plan.steps = ceil_div(plan.kernel_width, Math::kStep);
  plan.blocks = ceil_div(p.channels, plan.lanes);
  plan.phases = minimum(d, p.height);

  // Wide maps are cut into columns so that a few rows stay in the cache.
  constexpr int64_t kPackedBytes = 384 << 10;
  const int64_t vector_bytes = plan.lanes * static_cast<int64_t>(sizeof(typename V::Scalar));
  const int64_t rows_needed = plan.kernel_height - 1 + 4 * Tiles<Math>::kMaxRows;
  plan.column_strip = p.width;
  if (d == 1) {
    const int64_t columns = maximum(kPackedBytes / vector_bytes / rows_needed,
                                    2 * plan.kernel_width + 4 * Tiles<Math>::kMaxColumns);
    plan.column_strip = ceil_div(p.width, ceil_div(p.width, columns));
  }
  plan.column_strips = ceil_div(p.width, plan.column_strip);

  // Rows of a strip: as the cache allows, fewer where there would be too few tasks for many cores,
  // but never so few that packing the rows above and below again, or starting a task, shows.
  const int64_t packed_width =
      minimum(p.width, plan.column_strip + (plan.column_strips > 1 ? plan.kernel_width - 1 : 0));
  const int64_t cache_rows = maximum(
      4 * Tiles<Math>::kMaxRows, kPackedBytes / vector_bytes / packed_width - plan.kernel_height);
  constexpr int64_t kTasks = 32;
  const int64_t tasks = p.batch * plan.blocks * plan.phases * plan.column_strips;
  const int64_t wanted = ceil_div(plan.plane_height, ceil_div(kTasks, tasks));
  const int64_t row_work = plan.column_strip * minimum(plan.kernel_height, plan.plane_height) *
                           minimum(plan.kernel_width, plane_width);  // vector multiply-adds
  const int64_t least = maximum(ceil_div(60000, row_work), plan.kernel_height / 2);
  int64_t strip = minimum(cache_rows, maximum(wanted, least));
  strip = ceil_div(plan.plane_height, ceil_div(plan.plane_height, strip));
  strip = ceil_div(strip, Tiles<Math>::kMaxRows) * Tiles<Math>::kMaxRows;
  plan.strip = minimum(strip, plan.plane_height);
  plan.strips = ceil_div(plan.plane_height, plan.strip);
  plan.images_tasks = plan.phases * plan.strips * plan.column_strips;
  return plan;
}

template <class Math, class T>
class Convolution {
  using V = typename Math::Vector;
  using S = typename V::Scalar;
  static constexpr int64_t L = V::kLanes;

 public:
  static void run(const Problem& p, const ConstMap& x, const void* weight, const void* bias,
                  bool flip, const Map& out, ParallelFor parallel_for) {
    const Convolution call(p, x, static_cast<const T*>(weight), static_cast<const T*>(bias), flip,
                           out);
    parallel_for(call.plan_.blocks * p.batch * call.plan_.images_tasks, task,
                 const_cast<Convolution*>(&call));
  }

 private:
  Convolution(const Problem& p, const ConstMap& x, const T* weight, const T* bias, bool flip,
              const Map& out)
      : problem_(p),
        x_(x),
        out_(out),
        weight_(weight),
        bias_(bias),
        flip_(flip),
        plan_(make_plan<Math>(p)),
        call_(next_call()),
        column_(p.width + p.dilation),
        turned_(plan_.kernel_height * plan_.kernel_width) {
    int64_t at = 0;
    for (int64_t phase = 0; phase < p.dilation; ++phase) {
      phase_start()[phase] = static_cast<int32_t>(at);
      for (int64_t w = phase; w < p.width; w += p.dilation)
        column()[w] = static_cast<int32_t>(at++);
    }
    const int64_t taps = plan_.kernel_height * plan_.kernel_width;
    for (int64_t i = 0; i < taps; ++i) turned_.get()[i] = static_cast<int32_t>(taps - 1 - i);
  }

  int32_t* column() const { return column_.get(); }
  int32_t* phase_start() const { return column_.get() + problem_.width; }

  static int64_t next_call() {
    static int64_t calls = 0;
    return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
  }

  static void task(int64_t index, void* context) {
    static_cast<const Convolution*>(context)->compute(index);
  }

  // [kernel_height][steps][lane] of a block of channels, then the bias. A thread keeps what it used
  // last: its next task is mostly of the same block.
  const S* filter(int64_t block) const {
    struct Last {
      int64_t call = 0, block = 0, count = 0;
      S* data = nullptr;
      ~Last() { std::free(data); }
    };
    static thread_local Last last;
    if (last.call == call_ && last.block == block) return last.data;
    const Plan& k = plan_;
    const int64_t taps = k.kernel_height * k.kernel_width;
    const int64_t count = (taps + 1) * L;
    last.call = 0;
    if (count > last.count) {
      std::free(last.data);
      last.data = nullptr;
      last.count = 0;
      last.data = static_cast<S*>(allocate_aligned(count * sizeof(S)));
      last.count = count;
    }
    const int64_t all_taps = problem_.kernel_height * problem_.kernel_width;
    const int channels = static_cast<int>(minimum(L, problem_.channels - block * L));
    const T* from =
        weight_ + block * L * all_taps + k.crop_row * problem_.kernel_width + k.crop_column;
    const Strides strides{0, all_taps, problem_.kernel_width, 1};
    if (!flip_) {
      pack<V>(from, strides, channels, k.kernel_height, k.kernel_width, nullptr, last.data,
              k.kernel_width);
    } else if (k.kernel_width == problem_.kernel_width) {  // the rows follow one another
      pack<V>(from, strides, channels, 1, taps, turned_.get(), last.data, taps);
    } else {  // turned_ ends with the order of one row
      pack<V>(from, strides, channels, k.kernel_height, k.kernel_width,
              turned_.get() + taps - k.kernel_width,
              last.data + (k.kernel_height - 1) * k.kernel_width * L, -k.kernel_width);
    }
    (bias_ ? V::load_partial(bias_ + block * L, channels) : V::zero()).store(last.data + taps * L);
    last.call = call_;
    last.block = block;
    return last.data;
  }

  void compute(int64_t index) const {
    const Problem& p = problem_;
    const Plan& k = plan_;
    const int64_t d = p.dilation;
    const int64_t block = index / (p.batch * k.images_tasks);
    const int64_t image = index / k.images_tasks % p.batch;
    const int64_t part = index % k.images_tasks;
    const int64_t column_part = part % k.column_strips;
    const int64_t strip = part / k.column_strips % k.strips;
    const int64_t phase = part / k.column_strips / k.strips;

    const int64_t height = (p.height - phase + d - 1) / d;  // of this phase
    const int64_t row0 = strip * k.strip, row1 = minimum(height, row0 + k.strip);
    if (row0 >= row1) return;
    const int64_t above = k.kernel_height / 2, beside = k.kernel_width / 2;
    const int64_t top = maximum(0, row0 - above), bottom = minimum(height, row1 + above);
    const int64_t column0 = column_part * k.column_strip;
    const int64_t column1 = minimum(p.width, column0 + k.column_strip);
    const bool whole = k.column_strips == 1;
    const int64_t left = whole ? 0 : maximum(0, column0 - beside);
    const int64_t right = whole ? p.width : minimum(p.width, column1 + beside);
    const int64_t columns = right - left, out_columns = column1 - column0;
    const int channels = static_cast<int>(minimum(L, p.channels - block * L));
    const int32_t* position = d > 1 ? column() : nullptr;

    // Output rows are unpacked in groups, large enough for long runs, small enough for the cache.
    const int64_t group =
        minimum(row1 - row0,
                Tiles<Math>::kMaxRows * maximum(1, 128 / (out_columns * Tiles<Math>::kMaxRows)));
    Scratch scratch(Scratch::rounded((bottom - top) * columns * L * sizeof(S)) +
                    Scratch::rounded(group * out_columns * L * sizeof(S)));
    S* packed = scratch.template take<S>((bottom - top) * columns * L);
    S* result = scratch.template take<S>(group * out_columns * L);

    const Strides& sx = x_.strides;
    const T* source = static_cast<const T*>(x_.data) + image * sx.n + block * L * sx.c +
                      (phase + top * d) * sx.h + left * sx.w;
    pack<V>(source, {0, sx.c, d * sx.h, sx.w}, channels, bottom - top, columns, position, packed,
            columns);

    const S* weight = filter(block);
    Plane<S> plane{};
    plane.x_pitch = columns;
    plane.rows = bottom - top;
    plane.weight = weight;
    plane.kernel_height = k.kernel_height;
    plane.kernel_width = k.kernel_width;
    plane.steps = k.steps;
    plane.bias = weight + k.kernel_height * k.kernel_width * L;

    const Strides& so = out_.strides;
    T* target = static_cast<T*>(out_.data) + image * so.n + block * L * so.c + phase * so.h +
                column0 * so.w;
    for (int64_t g0 = row0; g0 < row1; g0 += group) {
      const int64_t g1 = minimum(row1, g0 + group);
      const int64_t row_tiles = ceil_div(g1 - g0, minimum(Tiles<Math>::kMaxRows, k.kernel_height));
      for (int64_t i = 0; i < row_tiles; ++i) {
        const int64_t r0 = g0 + (g1 - g0) * i / row_tiles;
        const int64_t r1 = g0 + (g1 - g0) * (i + 1) / row_tiles;
        for (int64_t residue = 0; residue < minimum(d, p.width); ++residue) {
          const int64_t start = d > 1 ? phase_start()[residue] : 0;
          const int64_t width = d > 1 ? (p.width - residue + d - 1) / d : out_columns;
          plane.x = packed + start * L;
          plane.stored = d > 1 ? width : columns;
          const int64_t column_tiles = ceil_div(width, Tiles<Math>::kMaxColumns);
          for (int64_t j = 0; j < column_tiles; ++j) {
            const int64_t c0 = width * j / column_tiles, c1 = width * (j + 1) / column_tiles;
            Tiles<Math>::find(static_cast<int>(r1 - r0), static_cast<int>(c1 - c0))(
                plane, r0 - top, c0 + column0 - left,
                result + ((r0 - g0) * out_columns + start + c0) * L, out_columns);
          }
        }
      }
      unpack<V>(result, out_columns, position, channels, g1 - g0, out_columns,
                target + g0 * d * so.h, {0, so.c, d * so.h, so.w});
    }
  }

  const Problem problem_;
  const ConstMap x_;
  const Map out_;
  const T* const weight_;
  const T* const bias_;
  const bool flip_;
  const Plan plan_;
  const int64_t call_;
  const Buffer<int32_t> column_;
  const Buffer<int32_t> turned_;
};

template <class>
void forward(const Problem& p, const ConstMap& x, const void* weight, const void* bias, bool flip,
             const Map& out, ParallelFor parallel_for) {
  switch (p.dtype) {
    case DType::kFloat32:
      return Convolution<Single<Float>, float>::run(p, x, weight, bias, flip, out, parallel_for);
    case DType::kFloat64:
      return Convolution<Single<Double>, double>::run(p, x, weight, bias, flip, out, parallel_for);
    case DType::kFloat16:
      return Convolution<Single<Float>, Half>::run(p, x, weight, bias, flip, out, parallel_for);
    case DType::kBFloat16:
      return Convolution<Single<Float>, BFloat16>::run(p, x, weight, bias, flip, out, parallel_for);
  }
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
