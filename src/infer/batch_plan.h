#pragma once
// A batch as the engine computes it, before anything is computed.

#include <map>
#include <span>
#include <string>
#include <vector>

#include "infer/prefix_groups.h"
#include "infer/prefix_statistics.h"
#include "infer/request.h"
#include "infer/schedule.h"

namespace tessera {

/// What a plan knows of the adapters that requests name.
struct BatchAdapters {
  /// Name -> what it holds, as a hash. Names of one content are one adapter, and share keys and values; a name that is
  /// not here is a content of its own. "base" is no adapter, and so is a name whose content is "base".
  std::map<std::string, std::string> contents{};
  int64_t most_together = INT64_MAX;  // adapters of one step: of more, each one's requests come together
};

/// One tree, in which requests of different salts share nothing, those of different adapters what is computed without
/// one, and the order in which they are admitted.
struct BatchPlan {
  std::vector<std::span<const int32_t>> fed;  // of each request: its prompt's tokens that are computed
  std::vector<TokenWeights> weights;          // of each request
  std::vector<std::string> adapters;          // a name of each, at its number; 0: "base"
  PrefixTree tree;
  PrefixStatistics statistics;
  std::vector<int32_t> order;
  std::vector<Demand> demands;
  std::vector<double> expected_new;  // of each request: tokens that it is expected to generate
  std::vector<int64_t> cached;       // of each request: the longest prefix that it shares with one of a lower number
  int64_t most_bundles = 0;          // of pages, that one request takes when it is alone
  int64_t all_bundles = 0;           // that all prompts and all continuations would take at once
  int32_t widest = 1;                // beams of the request with the most
  int32_t largest = -1;              // that request
};

/// @param requests      outlive the plan
/// @param max_position  positions that the model is set up for
BatchPlan plan_batch(std::span<const Request> requests, PrefixMode, int64_t page_tokens, int64_t max_position,
                     int threads, const BatchAdapters& = {});

/// The schedule when every continuation becomes as long as it may.
struct PlayedBatch {
  int64_t peak_bundles = 0;
};
PlayedBatch play(const BatchPlan&, const ScheduleLimits&);

}  // namespace tessera
