#pragma once
// The numbers of Stable-RPS, without memory: which weight reads which cell, how many read each,
// and what follows from that.

#include <string>
#include <vector>

#include "kernels/fold.h"

namespace tessera {

/// A tensor's place in the flat range of shared weights, and its scale λ = σ_k / σ_0.
struct FoldedTensor {
  std::string name;  // of its storage
  FoldLayout layout;
  double lambda = 1;
  int64_t begin = 0;
};

/// Cells up to `end` that are read by weights of the same scales.
struct CellRun {
  int64_t end;
  int64_t readers;
  double d;          // D = Σ λ² over the readers
  double magnitude;  // Σ |λ|
};

struct RpsPlan {
  FoldHash hash;
  int64_t weights = 0;  // N
  std::vector<FoldedTensor> tensors;
  std::vector<CellRun> runs;  // ends ascend, the last is m

  int64_t cells() const { return hash.cells; }
  int64_t chunks() const { return (weights + cells() - 1) / cells(); }
  double compression() const { return static_cast<double>(weights) / static_cast<double>(cells()); }
  /// The tensor that holds weight i.
  const FoldedTensor& tensor_of(int64_t i) const;
  /// Hash of rotations, offsets, layouts and scales.
  uint64_t fingerprint() const;
};

/// Lays the tensors out one behind the other (`begin` is set here) and finds the runs of cells with the same readers:
/// two numbers a run, however many cells it has.
RpsPlan plan_rps(std::vector<FoldedTensor>, int64_t cells, uint64_t seed);

/// λ for deviations σ_k and σ_0: their ratio, or its nearest power of two, by which numbers are multiplied exactly.
enum class FoldScale { exact, pow2 };
double fold_lambda(double sigma, double sigma_0, FoldScale);

}  // namespace tessera
