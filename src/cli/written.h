#pragma once
// What a run has written, and the figures of it as it stands on disk.

#include "cli/jobs.h"

namespace tessera {

/// A folder of results.
struct Written {
  std::string name;  // in the run's folder: "adapter", "sharing", "model", "peft"
  std::filesystem::path folder;
  bool is_trained = true;             // it holds the trained values bit for bit
  std::optional<DType> rounded_to{};  // the trained values did not fit into its dtype
  std::optional<LossSums> sums{};     // of the held-out rows
};

/// Finds the figures of what rank 0 has written: what holds the trained values has theirs; all else is read back from
/// its folder and evaluated, one folder after the other, by all ranks when they are of one node, else by rank 0 alone.
/// Every rank calls it.
/// @param trained  sums of the trained values over the same rows
void evaluate_written(const JobInputs&, const Context&, const PackedDataset& eval, const LossSums& trained,
                      std::vector<Written>&);

/// The figures of a run's outcome: those of the trained values when something that was written holds them,
/// else of what was written.
const LossSums& figures_of_outcome(const std::vector<Written>&, const LossSums& trained);

}  // namespace tessera
