#pragma once
// What is put in front of a text's tokens and behind them: BOS and EOS, as a rule.

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/tokenizer/special_tokens.h"
#include "data/tokenizer/vocabulary.h"

namespace tessera::tokenizer {

struct Surroundings {
  std::vector<int32_t> front, back;

  friend bool operator==(const Surroundings& a, const Surroundings& b) {
    return a.front == b.front && a.back == b.back;
  }
};

/// What decides is, as in `transformers` 5, the post_processor of tokenizer.json. Where there is none, add_bos_token
/// and add_eos_token of tokenizer_config.json do. Two classes go their own way: CodeLlamaTokenizer always puts BOS in
/// front, GPTNeoXTokenizer adds neither.
/// @param notice  set when `transformers` 4, where some classes go by these keys, gives another answer than 5, and when
///                the keys are there and not followed
/// @throws UserError for a post-processor that is not supported, or whose template is not [tokens] text [tokens]
Surroundings read_surroundings(const Json& tokenizer, const Json& config, const SpecialTokens& special,
                               const Vocabulary& vocabulary, std::string& notice);

}  // namespace tessera::tokenizer
