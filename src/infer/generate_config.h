#pragma once
#include "core/fields.h"
#include "infer/generate.h"

namespace tessera {

/// [generate]: what to continue, and how.
struct GenerateConfig {
  std::vector<std::string> prompts;
  std::filesystem::path prompts_file;
  int64_t limit = 0, max_new_tokens = 64;
  double temperature = 0, top_p = 1;
  int64_t top_k = 0, seed = 1, batch = 16;
  std::string output = "samples.jsonl";

  void visit(Fields& v) {
    v("prompts", prompts, anything(), "texts to continue", OnResume::free);
    v("prompts_file", prompts_file, anything(),
      "texts to continue: .jsonl records, or a text file with one prompt a line; without prompts and prompts_file: the held-out data",
      OnResume::free);
    v("limit", limit, at_least(0), "continue only the first prompts; 0: all", OnResume::free);
    v("max_new_tokens", max_new_tokens, in_range(1, 1 << 20),
      "tokens of a continuation at most; end-of-text ends it earlier", OnResume::free);
    v("temperature", temperature, at_least(0),
      "divides the logits before a token is drawn; 0: always the most likely token", OnResume::free);
    v("top_k", top_k, at_least(0), "draw among the k most likely tokens; 0: all", OnResume::free);
    v("top_p", top_p, in_range(0, 1),
      "draw among the fewest most likely tokens that have this share of the probability", OnResume::free);
    v("seed", seed, at_least(0), "of the draws", OnResume::free);
    v("batch", batch, in_range(1, 4096), "prompts that are continued together", OnResume::free);
    v("output", output, anything(), "name of a .jsonl file inside the run's folder: one JSON record a prompt",
      OnResume::free);
  }
  void check(SectionCheck&) const;

  /// @param stop  ids that end a continuation
  GenerateOptions options(std::vector<int32_t> stop) const {
    return {.max_new_tokens = max_new_tokens,
            .sampling = {.temperature = temperature, .top_k = top_k, .top_p = top_p},
            .seed = static_cast<uint64_t>(seed),
            .stop = std::move(stop),
            .batch = batch};
  }
};

}  // namespace tessera
