#pragma once
// Rotary positions, as config.json spells them: "rope_theta" and "rope_scaling" of transformers 4, "rope_parameters" of
// transformers 5, or all three.

#include <string>

#include "core/json.h"
#include "model/model_config.h"

namespace tessera {

/// What transformers reads: `rope_scaling` where it is there and not empty, else `rope_parameters`; theta is the
/// `rope_theta` inside it, else the one beside it, else the family's. A missing `rope_type` (or `type`) is "default";
/// of "llama3" a missing `original_max_position_embeddings` is `max_position`.
/// @throws UserError naming the key of the file: another type, a number missing or out of range, a number that nobody
///         reads, a table for each kind of layer, `rope_scaling` and `rope_parameters` that say different things
RopeConfig read_rope(const Json& config, double default_theta, int64_t max_position, const std::string& where);

}  // namespace tessera
