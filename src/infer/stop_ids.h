#pragma once
// The tokens that end a continuation.

#include <filesystem>
#include <vector>

#include "data/tokenizer.h"

namespace tessera {

/// Ids of `eos_token_id` (a number or a list of them) in generation_config.json and in config.json of each of the
/// model's folders, the tokenizer's EOS, and the token that the tokenizer puts behind a text;
/// each once, smallest first.
/// @throws UserError naming the file whose `eos_token_id` is something else
std::vector<int32_t> stop_ids(const std::vector<std::filesystem::path>& folders, const Tokenizer& tokenizer);

}  // namespace tessera
