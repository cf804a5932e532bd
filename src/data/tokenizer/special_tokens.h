#pragma once
// BOS and EOS: which tokens they are and whether a text gets them.

#include <cstdint>
#include <optional>
#include <vector>

#include "core/json.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/vocabulary.h"

namespace tessera::tokenizer {

struct SpecialTokens {
  std::optional<int32_t> bos, eos;
  bool add_bos = false, add_eos = false;
  std::vector<AddedToken> named;  // every token with a role (bos, eos, unk, pad), which makes it special

  /// @param config       tokenizer_config.json (null if there is none), which comes before
  /// @param special_map  special_tokens_map.json (null if there is none)
  static SpecialTokens read(const Json& config, const Json& special_map, const Vocabulary& vocabulary);

  /// Finds out add_bos and add_eos: the configuration's word, else the tokenizer class's habit, else the template's.
  void read_post_processor(const Json& tokenizer, const Json& config, const Vocabulary& vocabulary);
};

}  // namespace tessera::tokenizer
