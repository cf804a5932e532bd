#pragma once
// The points of a report: the states that a model passes while it is made smaller, each of them measured.

#include <memory>
#include <optional>

#include "compress/stages.h"
#include "model/fold/plan.h"

namespace tessera {

struct ReportPoint {
  std::string name;                // "original", "removed", "replaced", "shared" or "cured"
  std::optional<FoldPlan> plan{};  // none: the original
};

/// In the order in which the model passes them: the original; without what was removed, every block by itself; with
/// the block that was trained in place of a run; with groups that share; cured. A point at which nothing changes is
/// left out.
std::vector<ReportPoint> report_points(const FoldPlan&, bool is_cured);

/// A path of the recipe, whose keys stand as TOML has them; empty where it is not given.
std::string path_of_key(const StageInputs&, const std::string& key);

/// The rows that perplexities are of: those of data.eval, or without held-out data the calibration rows; the first
/// fold.report_tokens scored tokens of them, in their order.
class ReportRows {
 public:
  /// @throws UserError when neither is there
  explicit ReportRows(const StageInputs&);
  /// "data.eval", "held-out part of data.train" or "calibration rows of data.train".
  const std::string& which() const { return which_; }
  const PackedDataset& data() const { return data_; }

  /// Summed negative log-likelihood and number of scored tokens, the same bits for any number of ranks: passes have the
  /// same rows however many ranks take them in turn, and their sums are added in their order.
  /// @throws Stopped on every rank
  struct Sums {
    double nll = 0, scored = 0;
  };
  Sums score(const StageInputs&, Model&) const;

 private:
  PackedBatch batch(int64_t first, int64_t count) const;
  void cut_to(int64_t tokens);

  const PackedDataset& data_;
  std::string which_;
  std::vector<int64_t> rows_;
  std::optional<int64_t> of_last_row_{};  // scored tokens of the last row that count; none: all
};

/// What a point's entry of report.json holds; what was measured is rank 0's. A collective.
/// @throws Stopped on every rank
Json measure_point(const StageInputs&, const ReportPoint&, const ReportRows&);

/// Bytes of the arena that measuring a model takes.
int64_t plan_point_bytes(const StageSizes&, Model&);
/// For its speed: tokens that are computed at each point, and positions that a model must have.
int64_t tokens_of_speed();
int64_t positions_of_speed();

}  // namespace tessera
