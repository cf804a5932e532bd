#pragma once
// Regular expressions as tokenizer.json files are written for them, on io/regex.h.

#include <string>
#include <string_view>
#include <vector>

#include "io/regex.h"

namespace tessera::tokenizer {

using Range = TextRange;

/// A compiled pattern; move-only, safe to use from many threads.
class Regex {
 public:
  /// @param pattern  in the syntax of Oniguruma, which `tokenizer.json` files are written for, as far as PCRE2 shares
  ///                 it; \s and \w are widened to mean the same characters there and here.
  /// @throws UserError with the place of a fault in the pattern
  explicit Regex(const std::string& pattern);

  /// A pattern that matches `text` itself.
  static Regex literal(std::string_view text);

  /// Appends all matches in `text`, from left to right, not overlapping. An empty match is not reported where the
  /// match before it ended. @param text  valid UTF-8
  void find_all(std::string_view text, std::vector<Range>& matches) const;

  /// `text` with every match replaced by `content`, taken literally.
  /// @param most  bytes that the result may have at most
  /// @throws UserError when it would have more
  std::string replace_all(std::string_view text, std::string_view content, size_t most) const;

 private:
  std::string pattern_;
  tessera::Regex compiled_;
};

}  // namespace tessera::tokenizer
