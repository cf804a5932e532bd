#pragma once
// What training lowers. An objective says what a training row is, which sums its loss is made of, and where the
// gradient of the hidden states comes from; objective.cpp lists them.

#include <string>
#include <string_view>
#include <vector>

#include "score/loss_sums.h"

namespace tessera {

/// What training rows hold of an example of label words.
enum class ExampleRows { answers, choices };  // the right choice alone; every choice

enum class HiddenGradient {
  cross_entropy,  // of each scored token
  none,           // forward passes only
};

struct Objective {
  std::string_view name, help;  // train.objective
  std::string_view loss_sum,
      loss_count;  // of LossSums: the loss is their quotient, over all ranks' batches of a step or evaluation
  ExampleRows rows;
  HiddenGradient gradient;

  double sum(const LossSums& sums) const { return sums[loss_sum]; }
  int64_t count(const LossSums& sums) const { return static_cast<int64_t>(sums[loss_count]); }
  /// NaN when there is nothing to score.
  double mean(const LossSums& sums) const { return sums[loss_sum] / sums[loss_count]; }
};

const std::vector<Objective>& objectives();
/// @param name  train.objective
const Objective& objective_of(std::string_view name);

/// Whether the sum of every objective is.
bool are_finite(const LossSums&);

/// For the recipe's field: names, and what each of them is.
std::vector<std::string> objective_names();
std::string objective_help();

}  // namespace tessera
