#pragma once
// What the config.json of every family of decoders with rotary positions and grouped-query attention says in the same
// words.

#include "model/model_config.h"

namespace tessera {

/// Sizes, norms' eps, rotary positions, tied head, storage. The family's own keys and its name are left to the caller.
/// @throws UserError naming the key that is missing, out of range, or whose arithmetic is not supported
ModelConfig read_decoder_config(const Json& config, const std::string& where);

}  // namespace tessera
