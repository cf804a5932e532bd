#pragma once
// Regular expressions over UTF-8, on PCRE2 and within its limits: a pattern that is too large, or that would search for
// minutes, is an error. The only file that knows PCRE2 is regex.cpp.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// A stretch of a text: bytes, half open.
struct TextRange {
  size_t begin, end;
};

/// Where ^ and $ match: at the ends of the text, or of each of its lines, too.
enum class Anchors { text, lines };

/// A compiled pattern; move-only, safe to use from many threads.
class Regex {
 public:
  /// @param pattern  in PCRE2's syntax, which is Perl's
  /// @throws UserError without a place: the fault, and the byte of the pattern where it is
  explicit Regex(const std::string& pattern, Anchors = Anchors::text);

  /// Whether the pattern matches anywhere in `name`, a short text such as a tensor's name.
  /// @param name  need not be valid UTF-8: such a name holds no match
  /// @throws UserError when the search takes more than a million steps, which a name never needs
  bool is_found_in(std::string_view name) const;

  /// Appends all matches in `text`, from left to right, not overlapping. An empty match is not reported where the
  /// match before it ended. @param text  valid UTF-8
  /// @throws UserError without a place when the search was given up: the byte where it began, and why
  void find_all(std::string_view text, std::vector<TextRange>& matches) const;

 private:
  std::string pattern_;
  struct Free {
    void operator()(void* code) const;
  };
  std::unique_ptr<void, Free> code_;  // pcre2_code
};

}  // namespace tessera
