#pragma once
// Tokens with a role: BOS, EOS, unknown, padding and whatever else a configuration names.

#include <cstdint>
#include <optional>
#include <vector>

#include "core/json.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/vocabulary.h"

namespace tessera::tokenizer {

struct SpecialTokens {
  std::optional<int32_t> bos, eos;
  std::vector<AddedToken> named;  // every token that has a role, which makes it special

  /// As `transformers` reads them: special_tokens_map.json comes before tokenizer_config.json, unless the latter lists
  /// its added tokens; what neither names is what the tokenizer's class means by default.
  /// @param config       tokenizer_config.json (null if there is none)
  /// @param special_map  special_tokens_map.json (null if there is none)
  /// @throws UserError for BOS or EOS that is not in the vocabulary
  static SpecialTokens read(const Json& config, const Json& special_map, const Vocabulary& vocabulary);
};

/// `tokenizer_class` of tokenizer_config.json without the "Fast" at its end; empty when it is not there.
std::string tokenizer_class(const Json& config);

}  // namespace tessera::tokenizer
