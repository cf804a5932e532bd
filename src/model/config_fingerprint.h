#pragma once
// What identifies a config.json: the numbers that the arithmetic reads, not the file's text.

#include <string>

#include "model/model_config.h"

namespace tessera {

/// A hash of the family, the sizes, the heads, rms_norm_eps, the rotary embedding and tie_word_embeddings, each to the
/// bit. What changes no logit is left out: dtype, initializer_range, max_position_embeddings, spaces and the order of
/// keys. Checkpoints, run.json, adapters and pools keep it; ranks compare it. Files written before have none.
std::string config_fingerprint(const ModelConfig&);

/// The same numbers by the names that they have in config.json, so that a message can say which of them differ.
Json config_numbers(const ModelConfig&);

/// Which numbers differ, with both values: "rms_norm_eps was 1e-05 and is 1e-06"; empty where none does.
std::string changed_numbers(const Json& before, const Json& now);

}  // namespace tessera
