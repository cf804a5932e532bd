#pragma once
// [generate]: what job = "generate" continues, and how.

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/jobs.h"
#include "cli/jobs/generate_adapters.h"
#include "core/fields.h"
#include "core/section_check.h"
#include "infer/engine.h"
#include "infer/requests/request_defaults.h"

namespace tessera {

/// Sampling keys are what a request has whose line does not say otherwise.
struct GenerateConfig {
  std::vector<std::string> prompts;
  std::filesystem::path prompts_file;
  std::string kind = "auto", follow;
  int64_t limit = 0, max_new_tokens = 64;
  double temperature = 0, top_p = 1, min_p = 0, typical_p = 1;
  int64_t top_k = 0;
  double repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  int64_t no_repeat_ngram_size = 0, min_tokens = 0;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  int64_t n = 1, best_of = 0;
  int64_t num_beams = 1;
  double length_penalty = 1;
  std::string early_stopping = "false";
  int64_t logprobs = -1, prompt_logprobs = -1;
  int64_t seed = 1;
  std::string prefix = "tree";
  bool deterministic = true;
  int64_t page = 16;
  std::string kv_dtype = "auto";
  double memory_gib = 0;
  std::optional<int64_t> max_sequences, batch;
  int64_t step_tokens = 0;
  double high_water = 0.95, reserve = 0.5;
  std::string adapter;
  AdapterFolders adapters;  // [generate.adapters]
  int64_t max_step_adapters = 32;
  std::string output = "samples.jsonl";

  void visit(Fields& v);
  void check(SectionCheck&) const;
  void check_beams(SectionCheck&) const;

  /// A request that says nothing of itself.
  Request request() const;
  EngineOptions engine() const;
};

/// What the recipe of this job says.
inline const GenerateConfig& config_of(const JobInputs& in) { return in.config.own.of<GenerateConfig>(); }

}  // namespace tessera
