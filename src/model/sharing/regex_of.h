#pragma once
#include "core/error.h"
#include "io/regex.h"

namespace tessera {

/// A pattern of tensors' names. @throws UserError when the text is no regular expression
inline Regex regex_of(const std::string& text, const std::string& where) {
  try {
    return Regex(text);
  } catch (const UserError& error) {
    throw UserError(where, fmt::format("\"{:.80}\" is no regular expression: {}", text, error.message()),
                    "it is searched for in tensors' names, such as \"mlp\" or \"layers.0.\"");
  }
}

}  // namespace tessera
