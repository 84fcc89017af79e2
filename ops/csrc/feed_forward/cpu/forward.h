// The feed-forward part of a block in two products, with everything between them done in the cache.
//
// Rows are positions of the maps, lanes are channels (product.h). Weights are packed once a call:
// in a pass of their own where several tasks share them, else by the one task that needs them, just
// before, so that they are in the cache. Images go through in groups whose hidden map stays in the
// cache:
//   1. rows of x, times the input scale, are packed and multiplied with weight1; bias, GELU and the
//      sums of squares are taken from each tile while it is in the first cache, and the hidden map
//      is stored as the packed rows of the second product;
//   2. an image's sums give GRN's factors;
//   3. rows of the hidden map, times their factors, are multiplied with weight2; scale, bias and
//      residual are added to each tile on its way out.
// A panel of rows belongs to one image. A task is a chunk of an image's panels and a part of the
// columns; the split depends on the shape only, so that results do not depend on the threads.
#pragma once

#include "../../cpu/tasks.h"
#include "kernels.h"
#include "product.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

constexpr int64_t kChunkBytes = 320 << 10;  // packed rows of a task, for the second cache
constexpr int64_t kGroupBytes = 8 << 20;    // hidden maps of a group, for the third
constexpr int64_t kMinimumTasks = 8;        // of a phase, for the threads

// The tasks of one phase.
struct Tasks {
  Split panels;   // of an image, into chunks
  Split columns;  // vectors of columns in pairs, into parts
  int64_t chunk;  // the most panels in a chunk
  int64_t an_image() const { return panels.parts * columns.parts; }

  static Tasks plan(int64_t images, int64_t panels, int64_t panel_bytes, int64_t vectors) {
    const int64_t pairs = ceil_div(vectors, kTileVectors);
    const int64_t largest = maximum(1, kChunkBytes / panel_bytes);
    const int64_t chunks =
        images == 1 && panels * panel_bytes <= 2 * kChunkBytes ? 1 : ceil_div(panels, largest);
    const int64_t parts = minimum(pairs, ceil_div(kMinimumTasks, images * chunks));
    return {{panels, chunks}, {pairs, parts}, ceil_div(panels, chunks)};
  }
};

// count floats or none, padded with zeros, or with ones where there are none.
inline void pad(const float* from, int64_t count, int64_t padded, float missing, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from ? from[i] : missing;
  for (int64_t i = count; i < padded; ++i) to[i] = 0;
}

// The transpose of a weight (columns, inner), packed for the products: in place, where several
// tasks share it, else by the task that needs it.
template <class Operands, class T>
class Weight {
  using Element = typename Operands::Element;

 public:
  Weight(const void* data, int64_t columns, int64_t inner, int64_t blocks, int64_t vectors,
         bool shared)
      : shared(shared),
        pitch(blocks * Operands::kBlock * kLanes),
        data_(static_cast<const T*>(data)),
        columns_(columns),
        inner_(inner),
        blocks_(blocks),
        packed_(shared ? vectors * pitch : 0) {}

  void pack_in_place(int64_t vector) const {
    Scratch scratch(pitch * static_cast<int64_t>(sizeof(float)));
    pack(vector, scratch.take<float>(pitch), packed_.get() + vector * pitch);
  }

  // Of Scratch, for `vectors`.
  int64_t scratch_bytes() const {
    return shared ? 0
                  : Scratch::rounded(pitch * sizeof(float)) +
                        Scratch::rounded(kTileVectors * pitch * sizeof(Element));
  }

  // Where a task finds its tiles.
  class Tiles {
   public:
    Tiles(const Weight& weight, Scratch& scratch) : weight_(weight) {
      if (weight.shared) return;
      singles_ = scratch.take<float>(weight.pitch);
      packed_ = scratch.take<Element>(kTileVectors * weight.pitch);
    }
    // Of count vectors; holds until the next call.
    const Element* tile(int64_t vector, int64_t count) const {
      if (weight_.shared) return weight_.packed_.get() + vector * weight_.pitch;
      for (int64_t v = 0; v < count; ++v)
        weight_.pack(vector + v, singles_, packed_ + v * weight_.pitch);
      return packed_;
    }

   private:
    const Weight& weight_;
    float* singles_ = nullptr;
    Element* packed_ = nullptr;
  };

  const bool shared;
  const int64_t pitch;  // elements between vectors

 private:
  void pack(int64_t vector, float* singles, Element* to) const {
    pack_columns<Operands>(data_, columns_, inner_, vector * kLanes, blocks_, singles, to);
  }

  const T* const data_;
  const int64_t columns_, inner_, blocks_;
  const Buffer<Element> packed_;
};

template <class Operands, class T>
class FeedForwardRun {
  using Element = typename Operands::Element;
  static constexpr int kBlock = Operands::kBlock;
  static constexpr int kPanelBlock = kPanelRows * kBlock;  // elements of a block of a panel

 public:
  FeedForwardRun(const FeedForward& problem, ParallelFor parallel_for)
      : problem_(problem),
        parallel_for_(parallel_for),
        blocks1_(ceil_div(problem.channels, kBlock)),
        blocks2_(ceil_div(problem.hidden, kBlock)),
        vectors1_(blocks2_ * Operands::kDepth),
        vectors2_(ceil_div(problem.channels, kLanes)),
        inputs_(blocks1_ * kBlock),
        hidden_(blocks2_ * kBlock),
        outputs_(vectors2_ * kLanes),
        panels_(ceil_div(problem.positions, kPanelRows)),
        group_(minimum(problem.batch,
                       maximum(1, kGroupBytes / (panels_ * blocks2_ * kPanelBlock *
                                                 static_cast<int64_t>(sizeof(Element)))))),
        tasks1_(Tasks::plan(group_, panels_, panel_bytes(blocks1_), vectors1_)),
        tasks2_(Tasks::plan(group_, panels_, panel_bytes(blocks2_), vectors2_)),
        weight1_(problem.weight1, problem.hidden, problem.channels, blocks1_, vectors1_,
                 problem.batch * tasks1_.panels.parts > 1),
        weight2_(problem.weight2, problem.channels, problem.hidden, blocks2_, vectors2_,
                 problem.batch * tasks2_.panels.parts > 1),
        hidden_rows_(group_ * panels_ * blocks2_ * kPanelBlock),
        sums_(group_ * tasks1_.panels.parts * hidden_),
        factors_(group_ * hidden_),
        input_scale_(problem.batch * inputs_),
        bias1_(hidden_),
        beta_(hidden_),
        output_scale_(outputs_),
        bias2_(outputs_) {
    for (int64_t n = 0; n < problem.batch; ++n)
      pad(problem.input_scale ? problem.input_scale + n * problem.channels : nullptr,
          problem.channels, inputs_, 1, input_scale_.get() + n * inputs_);
    pad(problem.bias1, problem.hidden, hidden_, 0, bias1_.get());
    pad(problem.beta, problem.hidden, hidden_, 0, beta_.get());
    pad(problem.output_scale, problem.channels, outputs_, 1, output_scale_.get());
    pad(problem.bias2, problem.channels, outputs_, 0, bias2_.get());
  }

  void run() {
    if (weight1_.shared) run_all(vectors1_, &FeedForwardRun::pack_weight1);
    if (weight2_.shared) run_all(vectors2_, &FeedForwardRun::pack_weight2);
    for (first_ = 0; first_ < problem_.batch; first_ += group_) {
      const int64_t images = minimum(group_, problem_.batch - first_);
      run_all(images * tasks1_.an_image(), &FeedForwardRun::expand);
      run_all(images, &FeedForwardRun::normalize);
      run_all(images * tasks2_.an_image(), &FeedForwardRun::contract);
    }
  }

 private:
  static int64_t panel_bytes(int64_t blocks) {
    return blocks * kPanelBlock * static_cast<int64_t>(sizeof(Element));
  }

  void run_all(int64_t tasks, void (FeedForwardRun::*body)(int64_t)) {
    run_tasks(parallel_for_, tasks, this, body);
  }

  void pack_weight1(int64_t vector) { weight1_.pack_in_place(vector); }
  void pack_weight2(int64_t vector) { weight2_.pack_in_place(vector); }

  // Where a task is: its image in the group, its chunk of panels and its vectors of columns.
  struct Place {
    int64_t image, chunk, panel, end_panel, vector, end_vector;
  };
  static Place locate(const Tasks& tasks, int64_t vectors, int64_t task) {
    const int64_t part = task % tasks.columns.parts;
    const int64_t chunk = task / tasks.columns.parts % tasks.panels.parts;
    return {task / tasks.an_image(),
            chunk,
            tasks.panels.begin(chunk),
            tasks.panels.begin(chunk + 1),
            tasks.columns.begin(part) * kTileVectors,
            minimum(vectors, tasks.columns.begin(part + 1) * kTileVectors)};
  }

  // Panels are as even as can be: 49 rows are 13 + 12 + 12 + 12.
  int64_t first_row(int64_t panel) const { return problem_.positions * panel / panels_; }
  int64_t rows(int64_t panel) const { return first_row(panel + 1) - first_row(panel); }

  void expand(int64_t task) {
    const Place at = locate(tasks1_, vectors1_, task);
    Scratch scratch(Scratch::rounded(tasks1_.chunk * panel_bytes(blocks1_)) +
                    Scratch::rounded(kTileSize * sizeof(float)) + weight1_.scratch_bytes());
    Element* packed = scratch.take<Element>(tasks1_.chunk * blocks1_ * kPanelBlock);
    float* tile = scratch.take<float>(kTileSize);
    const typename Weight<Operands, T>::Tiles tiles(weight1_, scratch);
    for (int64_t panel = at.panel; panel < at.end_panel; ++panel)
      pack_input(at.image, panel, tile, packed + (panel - at.panel) * blocks1_ * kPanelBlock);

    float* sums = sums_.get() + (at.image * tasks1_.panels.parts + at.chunk) * hidden_;
    for (int64_t vector = at.vector; vector < at.end_vector; vector += kTileVectors) {
      const int64_t vectors = minimum(kTileVectors, at.end_vector - vector);
      const Element* columns = tiles.tile(vector, vectors);
      Float squares[kTileVectors] = {Float::zero(), Float::zero()};
      for (int64_t panel = at.panel; panel < at.end_panel; ++panel) {
        const int64_t count = rows(panel);
        choose_multiply<Operands>(count, vectors)(
            packed + (panel - at.panel) * blocks1_ * kPanelBlock, columns, weight1_.pitch, blocks1_,
            tile);
        for (int64_t v = 0; v < vectors; ++v) {
          const Float bias = Float::load(bias1_.get() + (vector + v) * kLanes);
          Element* to = hidden_panel(at.image, panel) +
                        (vector + v) / Operands::kDepth * kPanelBlock +
                        (vector + v) % Operands::kDepth * kLanes;
          for (int64_t r = 0; r < count; ++r) {
            const Float input = Float::load(tile + (v * kPanelRows + r) * kLanes).plus(bias);
            const Float h = gelu<typename Operands::GeluError>(input);
            squares[v].multiply_add(h, h);
            squares[v] = squares[v].plus(nan_of_minus_infinity(input));
            Operands::store(h, to + r * kBlock);
          }
        }
      }
      for (int64_t v = 0; v < vectors; ++v) squares[v].store(sums + (vector + v) * kLanes);
    }
  }

  // Rows of x times the input scale.
  void pack_input(int64_t image, int64_t panel, float* singles, Element* packed) {
    const FeedForward& p = problem_;
    const MapStrides& strides = p.x.strides;
    const int64_t count = rows(panel);
    const T* x = static_cast<const T*>(p.x.data) + (first_ + image) * strides.image +
                 first_row(panel) * strides.position;
    const float* scale = input_scale_.get() + (first_ + image) * inputs_;
    for (int64_t c = 0; c < inputs_; c += kLanes) {
      Element* to = packed + c / kBlock * kPanelBlock + c % kBlock;
      const int channels = static_cast<int>(minimum(kLanes, p.channels - c));
      if (channels > 0) {
        pack<Float>(x + c * strides.channel, Strides{0, strides.channel, 0, strides.position},
                    channels, 1, count, nullptr, singles, count);
      } else {
        fill_zero<Float>(singles, count);
      }
      const Float factor = Float::load(scale + c);
      for (int64_t r = 0; r < count; ++r)
        Operands::store(Float::load(singles + r * kLanes).times(factor), to + r * kBlock);
    }
  }

  Element* hidden_panel(int64_t image, int64_t panel) const {
    return hidden_rows_.get() + (image * panels_ + panel) * blocks2_ * kPanelBlock;
  }

  // GRN: factor_c = gamma_c g_c / (mean of g + 1e-6) + 1 with g_c the norm over an image's rows.
  void normalize(int64_t image) {
    const int64_t parts = tasks1_.panels.parts;
    const float* sums = sums_.get() + image * parts * hidden_;
    float* factors = factors_.get() + image * hidden_;
    double total = 0;
    for (int64_t c = 0; c < problem_.hidden; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < parts; ++i) sum += sums[i * hidden_ + c];
      factors[c] = static_cast<float>(__builtin_sqrt(sum));
      total += factors[c];
    }
    const float divisor = static_cast<float>(total / problem_.hidden) + 1e-6f;
    for (int64_t c = 0; c < problem_.hidden; ++c)
      factors[c] = problem_.gamma[c] * (factors[c] / divisor) + 1;
    for (int64_t c = problem_.hidden; c < hidden_; ++c) factors[c] = 0;
  }

  void contract(int64_t task) {
    const Place at = locate(tasks2_, vectors2_, task);
    Scratch scratch(Scratch::rounded(tasks2_.chunk * panel_bytes(blocks2_)) +
                    Scratch::rounded(kTileSize * sizeof(float)) + weight2_.scratch_bytes());
    Element* packed = scratch.take<Element>(tasks2_.chunk * blocks2_ * kPanelBlock);
    float* tile = scratch.take<float>(kTileSize);
    const typename Weight<Operands, T>::Tiles tiles(weight2_, scratch);
    for (int64_t panel = at.panel; panel < at.end_panel; ++panel)
      scale_hidden(at.image, panel, packed + (panel - at.panel) * blocks2_ * kPanelBlock);

    for (int64_t vector = at.vector; vector < at.end_vector; vector += kTileVectors) {
      const int64_t vectors = minimum(kTileVectors, at.end_vector - vector);
      const Element* columns = tiles.tile(vector, vectors);
      for (int64_t panel = at.panel; panel < at.end_panel; ++panel) {
        choose_multiply<Operands>(rows(panel), vectors)(
            packed + (panel - at.panel) * blocks2_ * kPanelBlock, columns, weight2_.pitch, blocks2_,
            tile);
        for (int64_t v = 0; v < vectors; ++v)
          store_output(at.image, panel, (vector + v) * kLanes, tile + v * kPanelRows * kLanes);
      }
    }
  }

  // Rows of the hidden map times GRN's factors, plus beta.
  void scale_hidden(int64_t image, int64_t panel, Element* packed) {
    const Element* from = hidden_panel(image, panel);
    const float* factors = factors_.get() + image * hidden_;
    const int64_t count = rows(panel);
    for (int64_t c = 0; c < hidden_; c += kLanes) {
      const int64_t offset = c / kBlock * kPanelBlock + c % kBlock;
      const Float factor = Float::load(factors + c);
      const Float beta = Float::load(beta_.get() + c);
      for (int64_t r = 0; r < count; ++r) {
        Float value = beta;
        value.multiply_add(Float::load_unaligned(from + offset + r * kBlock), factor);
        Operands::store(value, packed + offset + r * kBlock);
      }
    }
  }

  // kLanes channels from channel on of one panel's product, to the output.
  void store_output(int64_t image, int64_t panel, int64_t channel, float* tile) {
    const FeedForward& p = problem_;
    const int64_t count = rows(panel);
    const int channels = static_cast<int>(minimum(kLanes, p.channels - channel));
    const Float scale = Float::load(output_scale_.get() + channel);
    const Float bias = Float::load(bias2_.get() + channel);
    const auto offset = [&](const MapStrides& strides) {
      return (first_ + image) * strides.image + first_row(panel) * strides.position +
             channel * strides.channel;
    };
    float singles[kPanelRows * kLanes] __attribute__((aligned(kAlignment)));
    if (p.residual.data) {
      const MapStrides& strides = p.residual.strides;
      pack<Float>(static_cast<const T*>(p.residual.data) + offset(strides),
                  Strides{0, strides.channel, 0, strides.position}, channels, 1, count, nullptr,
                  singles, count);
    } else {
      fill_zero<Float>(singles, count);
    }
    for (int64_t r = 0; r < count; ++r) {
      Float value = bias.plus(Float::load(singles + r * kLanes));
      value.multiply_add(Float::load(tile + r * kLanes), scale);
      value.store(tile + r * kLanes);
    }
    const MapStrides& strides = p.x.strides;
    unpack<Float>(tile, count, nullptr, channels, 1, count,
                  static_cast<T*>(p.out) + offset(strides),
                  Strides{0, strides.channel, 0, strides.position});
  }

  const FeedForward& problem_;
  const ParallelFor parallel_for_;
  // Sizes of the two inner dimensions in blocks and of the two outputs in vectors, and all in
  // elements.
  const int64_t blocks1_, blocks2_, vectors1_, vectors2_, inputs_, hidden_, outputs_;
  const int64_t panels_;  // of an image
  const int64_t group_;   // images
  const Tasks tasks1_, tasks2_;
  const Weight<Operands, T> weight1_, weight2_;
  Buffer<Element> hidden_rows_;
  Buffer<float> sums_, factors_, input_scale_, bias1_, beta_, output_scale_, bias2_;
  int64_t first_ = 0;  // image of the group
};

inline void feed_forward(const FeedForward& problem, ParallelFor parallel_for) {
  switch (problem.dtype) {
    case DType::kFloat16:
      return FeedForwardRun<FloatElements, Half>(problem, parallel_for).run();
    case DType::kBFloat16:
#if UNIREPLKNET_BFLOAT16_PAIRS
      return FeedForwardRun<BFloat16Pairs, BFloat16>(problem, parallel_for).run();
#else
      return FeedForwardRun<FloatElements, BFloat16>(problem, parallel_for).run();
#endif
    default:
      return FeedForwardRun<FloatElements, float>(problem, parallel_for).run();
  }
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
