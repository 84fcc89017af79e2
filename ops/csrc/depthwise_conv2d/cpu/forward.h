// The convolution, and with the filter turned its gradient by the input.
//
// Lanes are channels. A task packs the rows of x that it needs as [row][column][lane] (pack.h) and
// computes tiles of R rows x T columns of the output in R*T vector registers:
//
//   for each input row that a tile sees:                    rows outside the map do not exist
//     for each kernel column i:
//       load R weights, one for each output row: those of R kernel rows
//       for each column t of the tile: load x[t + i], R multiply-adds
//
// R*T multiply-adds need R+T loads (3x7: 0.48 loads each). No multiply-add is spent on padding: the
// first and last R-1 input rows are unrolled for the output rows that they reach, and so are the
// kernel columns for which some columns of the tile look outside the map (the "triangles"). Hence
// no padding is stored, a plane packs as one run of height*width columns, and a filter larger than
// 2*size-1 is cropped to that.
//
// Dilation d: a 'same' convolution of dilation d is d*d dense convolutions, one for each residue of
// (row, column) modulo d. Packing brings the columns of one residue together, and the tiles never
// see the dilation.
//
// Packed tasks are in forward_packed.h, the tiles in tile.h. Small filters on channels_last maps
// are not worth packing: forward_unpacked.h runs the same tiles on the map itself.
//
// bfloat16 with AVX-512-BF16: an element is the pair (x[w], x[w+1]), a step is two kernel columns
// and vdpbf16ps the multiply-add (struct Pairs). A filter has an odd number of columns, so that one
// of its pairs is half empty. Zero times what x has there is zero, unless that is infinite or NaN:
// then, and for weights that are, the convolution is done again by the AVX-512 kernels.
//
// The split into tasks, strips and tiles depends on the shape only.
#pragma once

#include "forward_packed.h"
#include "forward_unpacked.h"
#include "kernels.h"

namespace unireplknet {
namespace UNIREPLKNET_ISA {

template <class T>
void convolve(const Problem& p, const ConstMap& x, const void* weight, const void* bias, bool flip,
              const Map& out, ParallelFor parallel_for) {
  if (Unpacked<T>::suits(p, x, out))
    Unpacked<T>::run(p, x, weight, bias, flip, out, parallel_for);
  else
    Packed<Single<Float>, T>::run(p, x, weight, bias, flip, out, parallel_for);
}

template <class>
void forward(const Problem& p, const ConstMap& x, const void* weight, const void* bias, bool flip,
             const Map& out, ParallelFor parallel_for) {
#if UNIREPLKNET_BFLOAT16_PAIRS
  if (p.dtype != DType::kBFloat16 || Unpacked<BFloat16>::suits(p, x, out) ||
      !Packed<Pairs, BFloat16>::run(p, x, weight, bias, flip, out, parallel_for))
    kernels_avx512().forward(p, x, weight, bias, flip, out, parallel_for);
#else
  switch (p.dtype) {
    case DType::kFloat32:
      return convolve<float>(p, x, weight, bias, flip, out, parallel_for);
    case DType::kFloat64:
      Packed<Single<Double>, double>::run(p, x, weight, bias, flip, out, parallel_for);
      return;
    case DType::kFloat16:
      return convolve<Half>(p, x, weight, bias, flip, out, parallel_for);
    case DType::kBFloat16:
      return convolve<BFloat16>(p, x, weight, bias, flip, out, parallel_for);
  }
#endif
}

}  // namespace UNIREPLKNET_ISA
}  // namespace unireplknet
