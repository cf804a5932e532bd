#pragma once
// What --check tells of a generation, as lines and as JSON.

#include "cli/plan.h"
#include "infer/engine.h"
#include "infer/requests/request_file.h"

namespace tessera {

/// Of all requests, on all ranks; memory and pages of the rank that takes the most.
struct GenerateFigures {
  PrefixStatistics statistics{};
  int64_t new_tokens = 0;  // when every continuation becomes as long as it may
  EngineMemory memory{};
  int64_t pages_per_bundle = 1;
  int64_t done = 0;  // lines that the journal has
  int ranks = 1;
  int64_t to_compute = 0;  // tokens of prompts on all ranks
};

/// Adds them to the plan's notes and JSON.
void tell_figures(const RequestFile&, const GenerateFigures&, JobPlan&);

}  // namespace tessera
