#pragma once
// The inference engine: a batch is planned as a whole; each token that prompts share is computed once, kept once, and
// read once a step.
//
//   requests ─ tree of their prefixes ─ schedule ─┐
//        ┌── a pass over its rows ◄─ plan of a step ◄┘
//        ├─ logits of last rows ─ tokens ─► schedule
//        └─ scores of prompts              answers, in the order in which requests end

#include <array>
#include <functional>
#include <map>
#include <string>

#include "data/tokenizer.h"
#include "infer/batch_plan.h"
#include "infer/crossover.h"
#include "infer/paged_context.h"
#include "model/model.h"

namespace tessera {

struct EngineOptions {
  PrefixMode prefix = PrefixMode::tree;
  bool deterministic = true;  // bits of an answer do not depend on what shares its batch
  int64_t page_tokens = 16;
  DType kv_dtype = DType::f32;  // f32, bf16, f16 or i8
  int64_t step_tokens = 256;    // rows of a pass
  int64_t max_sequences = 0;    // that are continued together, every beam counted; 0: as many as a pass has rows
  double high_water = 0.95, reserve = 0.5;
  bool cumulative_logprobs = false;       // of every continuation, also where no logprobs are asked for
  int64_t max_step_adapters = INT64_MAX;  // whose requests are computed together
  const Crossover* crossover = nullptr;   // null: measured where rows can share keys
};

/// Counts of a batch so far.
struct EngineCounts {
  int64_t finished = 0, failed = 0;   // requests
  int64_t generated = 0, scored = 0;  // tokens
  Schedule::Counts schedule{};
  int64_t pages_in_use = 0, pages_peak = 0, pages_total = 0;
  int64_t kv_bytes_read = 0;
  double planning_seconds = 0;                  // of steps
  std::array<Crossover::Point, 8> crossover{};  // its points, as far as they have rows; plain bytes, which ranks send
};

struct EngineHooks {
  /// Called for every request as it ends, in the order in which they end.
  std::function<void(int32_t request, RequestResult&&)> finished{};
  /// Called behind each pass, when the requests that it ended have been told.
  std::function<void(const EngineCounts&)> stepped{};
};

/// What a batch needs of the arena.
struct EngineMemory {
  int64_t bundles = 0, bundle_bytes = 0;
  int64_t peak_bundles = 0;  // of them in use at once, when every continuation becomes as long as it may
  int64_t pass_bytes = 0;    // beside the pages
  int64_t page_bytes() const { return bundles * bundle_bytes; }
  int64_t bytes() const { return page_bytes() + pass_bytes; }
};
/// Pages for the whole batch played through, or as many as `memory_bytes` holds, but at least those of its largest
/// request alone.
/// @param adapters  as of run_engine; they may be counted only
EngineMemory plan_engine_memory(Model&, const BatchPlan&, const EngineOptions&, int threads, int64_t memory_bytes,
                                const std::map<std::string, BoundAdapter*>& adapters = {});

/// Answers every request. A continuation depends on its own request alone: neither on the others nor on the schedule.
/// A request that cannot go on (its logits are not finite, no token is allowed, its keys do not fit into their pages)
/// ends with an error, and the others go on. Adapters that are bound must be assembled.
/// @param plan       of these requests, by the options' prefix mode
/// @param bundles    of pages; EngineMemory says how many, and the bytes of the context's scratch
/// @param adapters   by name; the model's own has none. "base" is what rows without an adapter read: of a model that
///   has no deltas it may be left out
/// @param tokenizer  of texts and stop strings; null: there are neither
/// @throws Stopped between two passes when a stop was asked for
EngineCounts run_engine(const Context&, Model&, std::span<const Request>, const BatchPlan& plan, const EngineOptions&,
                        int64_t bundles, const std::map<std::string, BoundAdapter*>& adapters,
                        const Tokenizer* tokenizer, const EngineHooks&);

}  // namespace tessera
