#include "core/deep_keys.h"

#include <algorithm>
#include <string>

namespace tessera {
namespace {

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  std::optional<TomlPlace> find() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        begin_name();
        pass_string(c);
      } else if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else {
        if (c == '.') {
          if (++dots_ >= kMostNames) return place_of(first_);
        } else if (ends_name(c)) {
          is_in_name_ = false;
          dots_ = 0;
        } else if (c != ' ' && c != '\t') {
          begin_name();
        }
        ++at_;
      }
    }
    return std::nullopt;
  }

 private:
  static bool ends_name(char c) { return std::string_view("\n=,[]{}").find(c) != std::string_view::npos; }

  void begin_name() {
    if (!is_in_name_) first_ = at_;
    is_in_name_ = true;
  }

  /// The rest of a string that begins here: behind its closing quotes, or at the end of the line that lacks them.
  void pass_string(char quote) {
    const std::string three(3, quote);
    const bool has_lines = text_.substr(at_).starts_with(three);
    at_ += has_lines ? 3 : 1;
    while (at_ < text_.size()) {
      const std::string_view rest = text_.substr(at_);
      if (quote == '"' && rest.front() == '\\') {
        at_ = std::min(at_ + 2, text_.size());
      } else if (has_lines && rest.starts_with(three)) {
        at_ += 3;
        for (int more = 0; more < 2 && at_ < text_.size() && text_[at_] == quote; ++more) ++at_;  // """a"""" ends in a"
        return;
      } else if (!has_lines && rest.front() == '\n') {
        return;
      } else {
        ++at_;
        if (!has_lines && rest.front() == quote) return;
      }
    }
  }

  TomlPlace place_of(size_t offset) const {
    TomlPlace place{1, 1};
    for (const char c : text_.substr(0, offset)) {
      place.line += c == '\n';
      place.column = c == '\n' ? 1 : place.column + 1;
    }
    return place;
  }

  std::string_view text_;
  size_t at_ = 0, first_ = 0, dots_ = 0;
  bool is_in_name_ = false;
};

}  // namespace

std::optional<TomlPlace> find_deep_key(std::string_view toml) { return Scanner(toml).find(); }

}  // namespace tessera
