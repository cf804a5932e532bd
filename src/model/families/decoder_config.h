#pragma once
// What the config.json of every family of decoders with rotary positions and grouped-query attention says in the same
// words.

#include <optional>

#include "model/model_config.h"

namespace tessera {

/// What transformers' class of a family takes for a key that is not there.
struct DecoderDefaults {
  std::optional<int64_t> kv_heads{};  // nothing: as many as heads
  std::optional<int64_t> head_dim{};  // nothing: hidden size / heads
  int64_t max_position = 2048;
  double rope_theta = 10000;
  bool tied = false;
};

/// Sizes, norms' eps, activation, rotary positions, tied head, storage. The family's own keys and its name are left to
/// the caller.
/// @throws UserError naming the key that is missing, out of range, or whose arithmetic is not supported
ModelConfig read_decoder_config(const Json& config, const std::string& where, const DecoderDefaults&);

}  // namespace tessera
