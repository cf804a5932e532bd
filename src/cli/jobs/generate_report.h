#pragma once
// What a generation says of its speed: while it works, and in generate_report.json when it has ended.

#include <chrono>
#include <filesystem>

#include "cli/jobs.h"
#include "cli/jobs/generate_plan.h"
#include "infer/least_time.h"

namespace tessera {

/// A line of progress on stderr every few seconds.
class GenerateProgress {
 public:
  /// @param planned  of the requests that are to be answered
  GenerateProgress(const JobInputs& in, const Planned& planned) : in_(in), planned_(planned) {}

  /// Counts of all ranks.
  void show(const EngineCounts&);
  /// Since it was made.
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  const JobInputs& in_;
  const Planned& planned_;
  Clock::time_point begin_ = Clock::now(), shown_ = begin_;
};

/// Tokens that are still to be computed, of prompts and new ones: by the plan, and by the share of requests that have
/// ended.
double tokens_left(const Planned&, const EngineCounts&);

/// What this rank does at best, measured for 0.2 s on all ranks at the same time, where that is little of what the
/// batch takes: of others it is not known. A collective. @param work  of this rank; null: it has none
MachineRates measure_rates(const JobInputs&, const Context* ctx, const LeastTime* work, const BatchPlan& plan);

/// What a run did, with times and counts of reuse, which are in no answer.
struct GenerateReport {
  PrefixStatistics statistics{};  // of the requests that it answered
  EngineCounts counts{};          // of all ranks
  double seconds = 0, optimum_seconds = 0;
  int64_t resumed = 0;  // lines that earlier starts had answered
  int ranks = 1;
};
/// generate_report.json
void write_report(const JobInputs&, const std::filesystem::path& run, const GenerateReport&);

}  // namespace tessera
