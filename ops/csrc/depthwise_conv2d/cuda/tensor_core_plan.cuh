// How the tensor-core kernels divide a convolution into blocks, and the model of the cost that
// chooses among the divisions. The choice depends on the shape alone, not on the device, so that
// results do not either.
//
// The model counts what a launch needs of each resource of one multiprocessor out of kProcessors:
// products on the tensor cores, instructions, passes through shared memory, bytes from the
// second-level cache and from device memory. The scarcest one rules if there are blocks enough to
// overlap; the time of a block on its own rules if there are not.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tensor_core.cuh"

namespace unireplknet::cuda {

namespace tensor_core {

constexpr int kProcessors = 132;
constexpr int kProcessorSharedBytes = 227 * 1024;
// Cycles of a multiprocessor: one m16n8k16 and one m16n8k8, all four schedulers together; a byte
// from memory and from the second-level cache; a block's beginning and end.
constexpr double kCyclesPerProduct = 1.6;
constexpr double kCyclesPerHalfProduct = 1.;
constexpr double kCyclesPerByte = 1 / 18.5;
constexpr double kCyclesPerCachedByte = 1 / 28.;
constexpr double kBlockLatency = 2500.;

// Of a grid, and units of work that a kernel counts in 32 bits.
constexpr int64_t kMaxBlocks = 0x7fffffff;

// Images of a tile at most; more than the 16 that a warp takes at a time are for small maps.
constexpr int kMaxImages = 64;

// Variants are compiled for kernel widths to 17, which is up to so many chunks under 8 outputs.
constexpr int kMostVariedChunks = 3;

// What a part of a launch needs.
struct Work {
  double tensor = 0;        // cycles of the tensor cores
  double shared = 0;        // passes through shared memory
  double instructions = 0;  // of warps
  double steps = 0;         // rows that one warp walks over, one after the other

  void add(const Work& other, double times) {
    tensor += times * other.tensor;
    shared += times * other.shared;
    instructions += times * other.instructions;
  }
  // Rows copied to shared memory, `vector` elements at a time, by so many lanes as copy_tile takes.
  void add_copy(double rows, int columns, int vector) {
    int lanes = 1;
    while (lanes < 32 && lanes * vector < columns) lanes *= 2;
    const double pieces = rows * divide_up(columns, lanes * vector) * lanes;
    shared += std::max(rows * columns / 64, pieces / 32);
    instructions += pieces / 32 * 15 + rows / 32 * 25;
  }
};

// Cycles of a launch of `count` equal blocks. `block` is what one block does, with the steps of
// its slowest warp; `bytes` and `cached_bytes` are what the launch moves to and from memory and
// through the cache.
inline double launch_cycles(int64_t count, const Work& block, double bytes, double cached_bytes,
                            int threads, int shared_bytes, int registers) {
  const int resident = std::min({kProcessorSharedBytes / (shared_bytes + 1024),
                                 65536 / (threads * registers), 2048 / threads});
  const double share = double(divide_up(count, int64_t{kProcessors}));
  const double memory = std::max(bytes * kCyclesPerByte, cached_bytes * kCyclesPerCachedByte);
  const double busy =
      std::max({share * block.tensor, share * block.shared, share * block.instructions / 4,
                memory / std::min<double>(count, kProcessors)});
  // A warp that has its scheduler to itself waits for shared memory and for the products in turn.
  const double alone = kBlockLatency + block.steps * 60 + block.tensor * 4 / (threads / 32);
  const double waves = double(divide_up(count, int64_t{kProcessors} * std::max(resident, 1)));
  return std::max(busy, waves * alone) + 0.3 * std::min(busy, waves * alone);
}

// --- forward ---

constexpr int kThreads = 128;
constexpr int kRows = 4;
constexpr int kForwardResident = 4;  // blocks that a multiprocessor's registers hold

struct ForwardPlan {
  TileLayout layout;
  int blocks;                      // of 8 columns in a segment: 1, 2 or 4
  int batch_groups, images;        // images that a block has in shared memory at a time
  int groups_per_block, stages;    // batch groups of a block, and of them in shared memory: 1 or 2
  int row_tiles, tile_rows;        // output rows of a block, a multiple of kRows
  int column_tiles, tile_columns;  // output columns of a block, a multiple of the segment's width
                                   // unless the tile is as wide as the map
  int batch, channels, height, width, kernel_height, kernel_width;
  int vector;        // elements of a copy from global memory
  int store_vector;  // elements of a store
  bool flip;
  int stage_bytes, zero_offset, filter_offset, shared_bytes;

  int64_t grid_size() const {
    return divide_up(int64_t{batch_groups}, int64_t{groups_per_block}) * channels * row_tiles *
           column_tiles;
  }
};

// Words of 2 taps in one of the two copies of a filter row.
__host__ __device__ constexpr int filter_words(int chunks) { return 4 * chunks + 4; }

// Chunks come in pairs, one ldmatrix each. Where the margin is an odd number of chunks the first
// pair starts one chunk further to the left, so that the pairs meet the map's border.
__host__ __device__ constexpr int phase_of(int chunks) { return chunks == 3 || chunks == 4; }

// One input row of 16 segments that start at output column `first` of the map: reading it, and its
// products for one row of output.
inline Work forward_row(const Shape& shape, int blocks, int first) {
  const int chunks = chunks_of(shape.kernel_width), phase = phase_of(chunks);
  const int last_chunk = blocks + chunks - 2;
  Work work;
  work.shared = chunks;
  for (int chunk = -phase; chunk <= last_chunk; chunk += 2) {
    const int column = first - margin_of(shape.kernel_width) + 8 * chunk;
    if (column + 15 < 0 || column >= shape.width) continue;
    work.shared += chunk >= 0 && chunk < last_chunk ? 4 : 2;
    for (int t = 0; t < blocks; ++t) {
      const int tap = chunk - t;
      if (tap < -1 || tap >= chunks) continue;
      work.tensor += tap == -1 || tap == chunks - 1 ? kCyclesPerHalfProduct : kCyclesPerProduct;
      work.instructions += 2.4;
    }
  }
  return work;
}

inline double forward_cycles(const Shape& shape, const ForwardPlan& plan) {
  const int padding = shape.padding_height();
  const int groups = divide_up(shape.height, kRows);
  const int tile_groups = std::min(groups, plan.tile_rows / kRows);
  const int runs = divide_up(std::min(plan.tile_columns, shape.width), 8 * plan.blocks);
  const int images = static_cast<int>(std::min<int64_t>(plan.images, shape.batch));
  const int tiles = divide_up(images * tile_groups * runs, 16);
  // Rows of input and of (input, output) pairs, on average over the tiles of 16 segments.
  const int span = std::min(tile_groups, divide_up(16, images));
  double steps = 0, pairs = 0;
  int samples = 0;
  for (int group = 0; group < groups; group += span, ++samples) {
    const int last_group = std::min(group + span, groups) - 1;
    const int begin = std::max(0, padding - kRows * last_group);
    const int end =
        std::min(shape.kernel_height + kRows - 1, shape.height + padding - kRows * group);
    steps += end - begin;
    for (int b = 0; b < kRows; ++b) {
      pairs += std::max(0, std::min(end, b + shape.kernel_height) - std::max(begin, b));
    }
  }
  steps /= samples;
  pairs /= samples;
  // The first, the last and any other run of a tile; tiles in the middle of a wide map are taken
  // to be like the one at its left.
  Work row;
  row.add(forward_row(shape, plan.blocks, 0), 1. / runs);
  if (runs > 1) row.add(forward_row(shape, plan.blocks, (runs - 1) * 8 * plan.blocks), 1. / runs);
  if (runs > 2) row.add(forward_row(shape, plan.blocks, 8 * plan.blocks), double(runs - 2) / runs);

  const int rounds = plan.groups_per_block;
  Work block;
  block.tensor = rounds * tiles * pairs * row.tensor;
  const int rows = std::min(plan.tile_rows + shape.kernel_height - 1, shape.height);
  const double loaded = 2. * images * rows * plan.layout.columns;
  const double stored = 2. * images * std::min(plan.tile_rows, shape.height) *
                        std::min(plan.tile_columns, shape.width);
  block.shared = rounds * (tiles * steps * row.shared + 2 * stored / 128);
  block.instructions =
      rounds * tiles * (pairs * row.instructions + steps * 16 + 200 + 50 * plan.blocks) + 600 +
      2 * shape.kernel_height * filter_words(chunks_of(shape.kernel_width));
  block.add_copy(double(rounds) * images * rows, std::min(plan.layout.columns, shape.width),
                 copy_vector(shape.width, plan.layout.margin, nullptr));
  block.steps = rounds * divide_up(tiles, kThreads / 32) * steps;
  const int64_t count = plan.grid_size();
  const double map = 2. * shape.planes() * shape.height * shape.width;
  return launch_cycles(count, block, 2 * map, count * rounds * (loaded + stored), kThreads,
                       plan.shared_bytes, plan.blocks == 4 ? 168 : 128);
}

// Calls visit(plan) for every plan of these variants that fits, complete but for what complete_plan
// adds.
template <class Visit>
void visit_forward_plans(const Shape& shape, const Variants& variants, Visit visit) {
  const int chunks = chunks_of(shape.kernel_width), margin = margin_of(shape.kernel_width);
  if (variants.prefetch && chunks > kMostVariedChunks) return;
  ForwardPlan plan{};
  plan.stages = variants.prefetch ? 2 : 1;
  plan.batch = static_cast<int>(shape.batch);
  plan.channels = static_cast<int>(shape.channels);
  plan.height = shape.height;
  plan.width = shape.width;
  plan.kernel_height = shape.kernel_height;
  plan.kernel_width = shape.kernel_width;
  for (plan.blocks = 1; plan.blocks <= 4; plan.blocks *= 2) {
    // A segment more than twice as wide as the map only adds work.
    if (plan.blocks > 1 && 4 * plan.blocks >= shape.width) break;
    for (plan.images = kMaxImages; plan.images >= 1; plan.images /= 2) {
      if (plan.images > 1 && plan.images / 2 >= shape.batch) continue;
      plan.batch_groups = static_cast<int>(divide_up(shape.batch, int64_t{plan.images}));
      plan.tile_rows = 0;
      for (int row_tiles = 1; plan.tile_rows != kRows; row_tiles *= 2) {
        plan.tile_rows = round_up(divide_up(shape.height, row_tiles), kRows);
        plan.row_tiles = divide_up(shape.height, plan.tile_rows);
        const int rows = std::min(shape.height, plan.tile_rows + shape.kernel_height - 1);
        plan.tile_columns = 0;
        for (int column_tiles = 1; plan.tile_columns != 8 * plan.blocks; column_tiles *= 2) {
          plan.tile_columns = column_tiles == 1
                                  ? round_up(shape.width, 8)
                                  : round_up(divide_up(shape.width, column_tiles), 8 * plan.blocks);
          plan.column_tiles = divide_up(shape.width, plan.tile_columns);
          const int columns = round_up(plan.tile_columns + margin * (column_tiles == 1 ? 1 : 2), 8);
          // The bound keeps sizes within 32 bits.
          if (int64_t{plan.images} * rows * columns > int64_t{1} << 24) continue;
          plan.layout = make_layout(margin, columns, rows, kRows, plan.images);
          plan.stage_bytes = plan.images * plan.layout.image_stride;
          plan.zero_offset = plan.stages * plan.stage_bytes;
          plan.filter_offset = plan.zero_offset + zero_bytes(chunks, plan.blocks);
          plan.shared_bytes = plan.filter_offset + shape.kernel_height * 8 * filter_words(chunks);
          if (plan.shared_bytes > static_cast<int>(kMaxSharedBytes)) continue;
          plan.groups_per_block = 1;
          if (plan.grid_size() > kMaxBlocks) continue;
          if (!variants.prefetch) visit(plan);
          // One to three blocks for each place on the device, each with a group to fetch ahead.
          const int resident = std::max(
              1, std::min(kProcessorSharedBytes / (plan.shared_bytes + 1024), kForwardResident));
          const int64_t batch_groups = plan.batch_groups, tiles = plan.grid_size() / batch_groups;
          for (int waves = 1; variants.prefetch && batch_groups > 1 && waves <= 3; ++waves) {
            const int64_t wanted = divide_up(int64_t{waves} * kProcessors * resident, tiles);
            const int64_t share = divide_up(batch_groups, std::min(batch_groups, wanted));
            const int groups = std::max(2, static_cast<int>(share));
            if (groups == plan.groups_per_block) continue;
            plan.groups_per_block = groups;
            visit(plan);
          }
          break;
        }
      }
    }
  }
}

// What depends on the call and not on the shape: pointers are looked at for their alignment.
inline void complete_plan(ForwardPlan& plan, const void* x, const void* out, bool flip) {
  plan.vector = copy_vector(plan.width, plan.layout.margin, x);
  plan.store_vector = copy_vector(plan.width, 8, out);
  plan.flip = flip;
}

// Without the variants for which no plan fits.
inline ForwardPlan choose_forward_plan(const Shape& shape, Variants variants) {
  ForwardPlan best{};
  double least = 0;
  visit_forward_plans(shape, variants, [&](const ForwardPlan& plan) {
    const double cycles = forward_cycles(shape, plan);
    if (best.images != 0 && cycles >= least) return;
    best = plan;
    least = cycles;
  });
  if (best.images != 0 || !variants.prefetch) return best;
  variants.prefetch = false;
  return choose_forward_plan(shape, variants);
}

// --- gradient of the filter ---

constexpr int kDefaultTapRows = 4;
constexpr int kSevenTapRows = 7;
constexpr int kWeightBlocks = 2;
// Warps of a block at most, and the registers of a thread that follow from the blocks of that size
// which should fit on a multiprocessor: 2 and, with seven rows of sums, 3.
constexpr int max_warps(int tap_rows) { return tap_rows == kDefaultTapRows ? 8 : 4; }
constexpr int least_blocks(int tap_rows) { return tap_rows == kDefaultTapRows ? 2 : 3; }
constexpr int weight_registers(int tap_rows) { return tap_rows == kDefaultTapRows ? 128 : 168; }
constexpr int kDiagonalPitch = 9;

struct BackwardWeightPlan {
  TileLayout x_layout, grad_layout;
  int batch_groups, images;        // images of a unit, the part of the maps in shared memory
  int row_tiles, tile_rows;        // rows of grad_output in a unit, a multiple of group_rows
  int column_tiles, tile_columns;  // columns of grad_output in a unit, a multiple of a segment's
  int splits;                      // blocks that share the units of a channel
  int stages;                      // units in shared memory at a time: 1 or 2
  int tap_rows;                    // kernel rows of a warp: kDefaultTapRows or kSevenTapRows
  int tap_groups, positions;       // warps: groups of kernel rows, and shares of the segments
  int batch, channels, height, width, kernel_height, kernel_width;
  int x_vector, grad_vector;  // elements of a copy from global memory
  int grad_offset, stage_bytes, zero_offset, shared_bytes;

  int threads() const { return 32 * tap_groups * positions; }
  int64_t grid_size() const { return int64_t{splits} * channels; }
  __host__ __device__ int64_t units() const {
    return int64_t{batch_groups} * row_tiles * column_tiles;
  }
};

// One row of x for 16 segments that start at column `first` of the map, and one kernel row.
inline Work backward_weight_row(const Shape& shape, int first) {
  const int chunks = chunks_of(shape.kernel_width), tiles = (chunks + 1) / 2;
  Work work;
  for (int t = 0; t < kWeightBlocks; ++t) {
    for (int j = 0; j < tiles; ++j) {
      const int column = first - margin_of(shape.kernel_width) + 8 * (t + 2 * j);
      if (first + 8 * t >= shape.width || column >= shape.width) continue;
      if (column + (2 * j + 1 < chunks ? 15 : 7) < 0) continue;
      work.tensor += kCyclesPerProduct;
      work.shared += 4;
      work.instructions += 1.7;
    }
  }
  return work;
}

inline double backward_weight_cycles(const Shape& shape, const BackwardWeightPlan& plan) {
  const int padding = shape.padding_height();
  const int group_rows = plan.grad_layout.group_rows;
  const int groups = divide_up(shape.height, group_rows);
  const int tile_groups = std::min(groups, plan.tile_rows / group_rows);
  const int runs = divide_up(std::min(plan.tile_columns, shape.width), 8 * kWeightBlocks);
  const int images = static_cast<int>(std::min<int64_t>(plan.images, shape.batch));
  const int tiles = divide_up(images * tile_groups * runs, 16);
  const int span = std::min(tile_groups, divide_up(16, images));
  // Steps and (row of x, kernel row) pairs of a tile of 16 segments, all kernel rows together.
  double steps = 0, pairs = 0, longest = 0;
  int samples = 0;
  for (int group = 0; group < groups; group += span, ++samples) {
    const int last_group = std::min(group + span, groups) - 1;
    for (int tap = 0; tap < shape.kernel_height; tap += plan.tap_rows) {
      const int tap_rows = std::min(plan.tap_rows, shape.kernel_height - tap);
      const int begin = std::max(0, padding - tap - group_rows * last_group);
      const int end =
          std::min(group_rows + tap_rows - 1, shape.height + padding - tap - group_rows * group);
      steps += std::max(0, end - begin);
      longest = std::max<double>(longest, end - begin);
      for (int b = 0; b < tap_rows; ++b) {
        pairs += std::max(0, std::min(end, b + group_rows) - std::max(begin, b));
      }
    }
  }
  steps /= samples;
  pairs /= samples;
  Work row;
  row.add(backward_weight_row(shape, 0), 1. / runs);
  if (runs > 1) row.add(backward_weight_row(shape, (runs - 1) * 8 * kWeightBlocks), 1. / runs);
  if (runs > 2) row.add(backward_weight_row(shape, 8 * kWeightBlocks), double(runs - 2) / runs);

  const auto units = static_cast<double>(divide_up(plan.units(), int64_t{plan.splits}));
  const int rounds = divide_up(tiles, plan.positions);
  const int rows = std::min(plan.tile_rows + shape.kernel_height - 1, shape.height);
  const double loaded =
      2. * images *
      (rows * plan.x_layout.columns + std::min(plan.tile_rows, shape.height) * plan.tile_columns);
  Work block;
  block.tensor = units * tiles * pairs * row.tensor;
  block.shared = units * tiles * (steps * row.shared + 4. * group_rows * plan.tap_groups);
  block.instructions =
      units * (tiles * (pairs * row.instructions + steps * 30 + 150 * plan.tap_groups) + 400) +
      600 * (plan.threads() / 32);
  block.add_copy(units * images * rows, std::min(plan.x_layout.columns, shape.width),
                 copy_vector(shape.width, plan.x_layout.margin, nullptr));
  block.add_copy(units * images * std::min(plan.tile_rows, shape.height),
                 std::min(plan.tile_columns, shape.width), copy_vector(shape.width, 8, nullptr));
  // Between units nothing of the block is under way, unless it prefetches.
  block.steps = units * (rounds * longest + (plan.stages == 1 ? kBlockLatency / 60 : 0));
  const int64_t count = plan.grid_size();
  const double map = 2. * shape.planes() * shape.height * shape.width;
  return launch_cycles(count, block, 2 * map, count * units * loaded, plan.threads(),
                       plan.shared_bytes, weight_registers(plan.tap_rows)) +
         (plan.splits > 1 ? 2000 : 0);
}

// As visit_forward_plans.
template <class Visit>
void visit_backward_weight_plans(const Shape& shape, const Variants& variants, Visit visit) {
  const int chunks = chunks_of(shape.kernel_width), margin = margin_of(shape.kernel_width);
  const int taps = shape.kernel_height * shape.kernel_width;
  if ((variants.seven_rows || variants.prefetch) && chunks > kMostVariedChunks) return;
  BackwardWeightPlan plan{};
  plan.stages = variants.prefetch ? 2 : 1;
  plan.tap_rows = variants.seven_rows ? kSevenTapRows : kDefaultTapRows;
  plan.batch = static_cast<int>(shape.batch);
  plan.channels = static_cast<int>(shape.channels);
  plan.height = shape.height;
  plan.width = shape.width;
  plan.kernel_height = shape.kernel_height;
  plan.kernel_width = shape.kernel_width;
  plan.tap_groups = divide_up(shape.kernel_height, plan.tap_rows);
  for (plan.positions = 1; plan.positions * plan.tap_groups <= max_warps(plan.tap_rows);
       plan.positions *= 2) {
    for (plan.images = kMaxImages; plan.images >= 1; plan.images /= 2) {
      if (plan.images > 1 && plan.images / 2 >= shape.batch) continue;
      plan.batch_groups = static_cast<int>(divide_up(shape.batch, int64_t{plan.images}));
      for (int groups = 1; groups <= 16; groups *= 2) {
        if (groups > 1 && (groups - 1) * kDefaultTapRows >= shape.height) break;
        plan.tile_rows = 0;
        for (int row_tiles = 1; row_tiles == 1 || plan.tile_rows > groups * kDefaultTapRows;
             row_tiles *= 2) {
          const int group_rows = divide_up(shape.height, row_tiles * groups);
          plan.tile_rows = group_rows * groups;
          plan.row_tiles = divide_up(shape.height, plan.tile_rows);
          const int rows = std::min(shape.height, plan.tile_rows + shape.kernel_height - 1);
          plan.tile_columns = 0;
          for (int column_tiles = 1; plan.tile_columns != 8 * kWeightBlocks; column_tiles *= 2) {
            plan.tile_columns = round_up(divide_up(shape.width, column_tiles), 8 * kWeightBlocks);
            plan.column_tiles = divide_up(shape.width, plan.tile_columns);
            const int columns =
                round_up(plan.tile_columns + margin * (column_tiles == 1 ? 1 : 2), 8);
            // The bound keeps sizes within 32 bits.
            if (int64_t{plan.images} * rows * columns > int64_t{1} << 24) continue;
            plan.x_layout = make_layout(margin, columns, rows, group_rows, plan.images);
            plan.grad_layout =
                make_layout(0, plan.tile_columns, plan.tile_rows, group_rows, plan.images);
            plan.grad_offset = plan.images * plan.x_layout.image_stride;
            plan.stage_bytes = plan.grad_offset + plan.images * plan.grad_layout.image_stride;
            plan.zero_offset = plan.stages * plan.stage_bytes;
            const int sum_bytes =
                4 * (plan.threads() / 32 * 16 * ((chunks + 1) / 2) * kDiagonalPitch +
                     plan.positions * taps);
            plan.shared_bytes =
                std::max(plan.zero_offset + zero_bytes(chunks, kWeightBlocks), sum_bytes);
            if (plan.shared_bytes > static_cast<int>(kMaxSharedBytes)) continue;
            // One to three blocks for each place on the device, if there is so much to do.
            const int most_threads = 32 * max_warps(plan.tap_rows) * least_blocks(plan.tap_rows);
            const int resident =
                std::max(1, std::min(kProcessorSharedBytes / (plan.shared_bytes + 1024),
                                     most_threads / plan.threads()));
            const int64_t units = plan.units();
            if (units > kMaxBlocks || units < plan.stages) continue;
            plan.splits = 0;
            for (int waves = 1; waves <= 3; ++waves) {
              const int64_t wanted =
                  divide_up(int64_t{waves} * kProcessors * resident, shape.channels);
              const int64_t per_block =
                  std::max<int64_t>(plan.stages, divide_up(units, std::min(units, wanted)));
              const int splits = static_cast<int>(divide_up(units, per_block));
              if (splits == plan.splits) continue;
              plan.splits = splits;
              visit(plan);
            }
            break;
          }
        }
      }
    }
  }
}

inline void complete_plan(BackwardWeightPlan& plan, const void* grad_output, const void* x) {
  plan.grad_vector = copy_vector(plan.width, 8, grad_output);
  plan.x_vector = copy_vector(plan.width, plan.x_layout.margin, x);
}

inline BackwardWeightPlan choose_backward_weight_plan(const Shape& shape, Variants variants) {
  BackwardWeightPlan best{};
  double least = 0;
  visit_backward_weight_plans(shape, variants, [&](const BackwardWeightPlan& plan) {
    const double cycles = backward_weight_cycles(shape, plan);
    if (best.images != 0 && cycles >= least) return;
    best = plan;
    least = cycles;
  });
  if (best.images != 0 || variants == Variants{}) return best;
  if (variants.prefetch) {
    variants.prefetch = false;
  } else {
    variants.seven_rows = false;
  }
  return choose_backward_weight_plan(shape, variants);
}

inline size_t backward_weight_workspace(const Shape& shape, const BackwardWeightPlan& plan) {
  return sizeof(float) * plan.splits * shape.channels * shape.kernel_height * shape.kernel_width;
}

// choose(shape, variants), remembered for the shapes that this thread asked for last: a choice
// takes some microseconds, about as long as a launch.
template <class Plan>
Plan remembered_plan(const Shape& shape, Variants variants,
                     Plan (*choose)(const Shape&, Variants)) {
  struct Entry {
    Shape shape;
    Variants variants;
    Plan (*choose)(const Shape&, Variants);
    Plan plan;
  };
  constexpr int kEntries = 64;
  thread_local Entry entries[kEntries] = {};
  const uint64_t key[] = {uint64_t(shape.batch),         uint64_t(shape.channels),
                          uint64_t(shape.height),        uint64_t(shape.width),
                          uint64_t(shape.kernel_height), uint64_t(shape.kernel_width)};
  uint64_t hash = 0;
  for (uint64_t size : key) hash = (hash + size) * 0x9e3779b97f4a7c15;
  Entry& entry = entries[hash >> 58];
  const Shape& known = entry.shape;
  if (known.batch != shape.batch || known.channels != shape.channels ||
      known.height != shape.height || known.width != shape.width ||
      known.kernel_height != shape.kernel_height || known.kernel_width != shape.kernel_width ||
      !(entry.variants == variants) || entry.choose != choose) {
    entry = {shape, variants, choose, choose(shape, variants)};
  }
  return entry.plan;
}

}  // namespace tensor_core

}  // namespace unireplknet::cuda
