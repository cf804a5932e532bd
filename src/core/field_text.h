#pragma once
// Fields in words: their values as TOML, and what they may be.

#include "core/fields.h"

namespace tessera {

/// A text as TOML writes it, in quotes.
std::string quoted(const std::string&);

/// The value as TOML; empty for an absent optional.
std::string value_text(const FieldTarget&);

/// The value as it is to stand in another folder's recipe: paths are absolute.
std::string portable_text(const FieldTarget&);

/// "a whole number"
const char* wanted_kind(const FieldTarget&);

/// "1 to 8"; empty when all is allowed.
std::string allowed_text(const Rule&);

/// Behind "at least 0": where numbers end.
std::string largest_text(const FieldTarget&);

}  // namespace tessera
