#pragma once
// Losses at points around the weights, side by side in one forward pass where that is faster.
// Weights are read, never written.

#include <memory>
#include <vector>

#include "score/forward.h"
#include "train/train_config.h"

namespace tessera {

/// w + scale · z; scale 0: the weights themselves.
struct Point {
  Direction z;
  float scale = 0;
};

/// Two ways to read a perturbed pool: scratch copies of its trained values, right for a small pool; or each matrix
/// perturbed into scratch just before its product, right for full weights.
/// Both give w + scale·z rounded once, so both give the same losses.
class Prober {
 public:
  enum class Perturb { copies, layers };
  /// @param side_by_side  points that are held at once: those of one pass,
  ///   or of passes one behind the other when the batch is large
  Prober(Model&, Perturb, int64_t side_by_side);

  /// Sums of the batches at each point. A point whose loss is not finite has a sum that is not finite.
  std::vector<LossSums> losses(const Context&, std::span<const PackedBatch> batches, std::span<const Point> points);
  /// Rows of one pass over a probe's batch: train.micro_batch, or about 512 tokens;
  /// 2048 when each pass has to perturb all weights.
  int64_t micro_rows(const TrainConfig&) const;
  /// Memory beside the model: the copies, which are only counted where the model is.
  int64_t owned_bytes() const;
  /// Bytes of the arena that `losses` needs for batches of this size: a dry run with a counting arena.
  int64_t plan_bytes(int64_t rows, int64_t sequence_length, int threads);

 private:
  struct Lane {  // what one of the side-by-side points reads
    TensorView copy;
    PoolRead read;
    Point point;
    std::unique_ptr<BoundAdapter> adapter;
  };
  void point_lanes(const Context&, std::span<const Point>);
  size_t together(int64_t tokens) const;  // points of one pass
  /// One pass of the points of lanes `first` and following.
  void run(const Context&, const PackedBatch&, size_t first, std::span<LossSums> sums);
  int64_t plan_pass(int64_t rows, int64_t sequence_length, int threads);
  Model& model_;
  Perturb perturb_;
  // One copy of the trained values a lane; nothing with Perturb::layers.
  Storage copies_;
  std::vector<Lane> lanes_;
};

}  // namespace tessera
