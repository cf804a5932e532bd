#pragma once
#include <regex>

#include "core/error.h"

namespace tessera {

/// @throws UserError when the text is no regular expression
inline std::regex regex_of(const std::string& text, const std::string& where) {
  try {
    return std::regex(text);
  } catch (const std::regex_error& error) {
    throw UserError(where, fmt::format("\"{}\" is no regular expression: {}", text, error.what()),
                    "it is searched for in tensors' names, such as \"mlp\" or \"layers.0.\"");
  }
}

}  // namespace tessera
