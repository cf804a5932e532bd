#pragma once
// Regular expressions of tensors' names, as recipes have them.

#include <string>
#include <vector>

#include "core/error.h"
#include "core/section_check.h"
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
/// Faults of the patterns that a key lists: whether they are any shows without a model.
inline void check_patterns(SectionCheck& own, const std::string& key, const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns) try {
      regex_of(pattern, "");
    } catch (const UserError& error) {
      own.pass_on(key, error);
    }
}

}  // namespace tessera
