#pragma once
// Regular expressions over UTF-8, on PCRE2. The only file that knows PCRE2 is regex.cpp.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::tokenizer {

struct Range {
  size_t begin, end;  // bytes, half open
};

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
  std::string replace_all(std::string_view text, std::string_view content) const;

 private:
  struct Free {
    void operator()(void* code) const;
  };
  std::string pattern_;
  std::unique_ptr<void, Free> code_;  // pcre2_code
};

}  // namespace tessera::tokenizer
