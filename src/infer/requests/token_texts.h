#pragma once
// The text of each token of a sequence, as OpenAI's answers tell it.

#include <cstdint>
#include <span>
#include <string>

#include "core/json.h"
#include "data/tokenizer.h"

namespace tessera {

/// What a token reads as behind the tokens before it, special ones spelled out. A token that is a part of a character
/// has U+FFFD.
/// @param before  of which the last few count
std::string token_text(const Tokenizer&, std::span<const int32_t> before, int32_t id);

/// The bytes of a token's text as a list of numbers; null for parts of characters, whose text does not have them.
Json token_bytes(const std::string& text);

/// Characters (code points) of a text that is valid UTF-8.
int64_t characters_of(const std::string& text);

}  // namespace tessera
