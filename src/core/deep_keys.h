#pragma once
// A look at a TOML text before it is parsed: the parser and all that walks its tables call themselves once for each
// name of a key, so that a key of tens of thousands of names would overflow the stack.

#include <cstddef>
#include <optional>
#include <string_view>

#include "core/toml.h"

namespace tessera {

/// Names that a key may have, as "train.steps" has two: no section lies deeper.
inline constexpr size_t kMostNames = 32;

/// Where the first key or header with more than kMostNames names begins. Strings and comments are passed over; what is
/// not TOML is left to the parser.
std::optional<TomlPlace> find_deep_key(std::string_view toml);

}  // namespace tessera
