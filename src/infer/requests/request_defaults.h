#pragma once
// What holds for a request whose line does not say it.

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "core/json.h"
#include "infer/request.h"

namespace tessera {

/// [generate] and the model, as the lines of a file of requests need them.
struct RequestDefaults {
  /// Values of a request whose line does not say otherwise: those of [generate]. `best_of` 0: as many as n. `adapter`
  /// is generate.adapter. `prompt`, `custom_id`, `seed` and `stop_ids` are not read.
  Request request{};
  /// The keys of [generate] that the recipe gives. Where it does not give "temperature" or "max_new_tokens", lines of
  /// OpenAI's have OpenAI's defaults.
  std::set<std::string> given{};
  std::vector<int32_t> eos{};  // ids that end a text (stop_ids), unless a line ignores them or names its own
  bool ignore_eos = false;
  uint64_t seed = 1;                 // generate.seed, from which requests without a seed get theirs
  std::set<std::string> adapters{};  // names that a line may ask for; "base", no adapter, is always one
  std::string model_name{};          // of the base's folder: what an OpenAI body calls the base
  int64_t vocab_size = 0;            // ids of prompts and options are below
  int64_t max_position = 0;          // a prompt has fewer tokens, or one that is scored no more; 0: no bound
  /// The tokens of OpenAI's `messages`. Empty while no chat template is read: then `messages` are refused by name.
  std::function<std::vector<int32_t>(const Json& messages)> encode_messages{};
};

}  // namespace tessera
