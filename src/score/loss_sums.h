#pragma once
// Sums over what was scored, by name. Metrics (metrics/metric.h) say which there are, and add to them, batch after
// batch; here they are kept, in memory and in files.

#include <span>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace tessera {

/// A piece with scored tokens of a document that was cut into several such: whether each of them is the arg max.
struct CutCompletion {
  int64_t document;
  int32_t pieces;  // of the document, with scored tokens
  bool exact;
};

/// Sums over the scored tokens, completions and choices of one or more batches, 0 before the first; never means of
/// means. NaN: not known, as of a file that was written before there was such a sum.
class LossSums {
 public:
  LossSums();
  /// @param name  a sum of one of the metrics
  double& operator[](std::string_view name);
  double operator[](std::string_view name) const;
  /// In the order of sum_specs: what is summed over ranks and kept in checkpoints.
  /// Counts are whole numbers below 2^53, so exact.
  std::span<double> values() { return values_; }
  std::span<const double> values() const { return values_; }

  /// Whether anything was scored, and its sums are known.
  bool has_scored() const { return (*this)["scored"] > 0; }

  std::vector<CutCompletion> cut{};  // not yet among the completions: other batches may hold the other pieces
  /// Counts the documents in `cut` all of whose pieces are there, each once, and clears it (metrics/completions.cpp).
  void count_cut_completions();

 private:
  std::vector<double> values_;
};

/// Sums as files keep them, by name: counts as whole numbers. A sum that is not known is absent, or null.
Json to_json(const LossSums&);
LossSums loss_sums_of(const Json&);

}  // namespace tessera
