#include "core/json_place.h"

#include <algorithm>

#include "core/json.h"

namespace tessera {
namespace {

/// Walks over a text that is known to be valid: values are passed over by their brackets and quotes alone.
class Walker {
 public:
  explicit Walker(std::string_view text) : text_(text) {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;  // a byte order mark
    skip_space();
    place_ = at_;
  }

  /// Moves from the start of a value to that of the one inside it; false, and at the same place, when there is none.
  bool enter(const JsonStep& step) {
    const size_t start = at_;
    const bool wants_key = std::holds_alternative<std::string>(step);
    if (peek() == (wants_key ? '{' : '[')) {
      ++at_;
      skip_space();
      for (int64_t index = 0; peek() != '}' && peek() != ']' && at_ < text_.size(); ++index) {
        const size_t begin = at_;
        if (wants_key ? take_key() == std::get<std::string>(step) : index == std::get<int64_t>(step)) {
          place_ = begin;
          return true;
        }
        skip_value();
        skip_space();
        if (peek() == ',') ++at_;
        skip_space();
      }
    }
    at_ = start;
    return false;
  }

  /// Where the member or element that was entered last begins; at first, where the text's value does.
  size_t place() const { return place_; }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    while (at_ < text_.size() && (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t')) ++at_;
  }
  void skip_string() {
    for (++at_; at_ < text_.size() && peek() != '"'; ++at_)
      if (peek() == '\\') ++at_;
    ++at_;
  }
  std::string take_key() {
    const size_t start = at_;
    skip_string();
    std::string key = Json::parse(text_.substr(start, at_ - start), "").as_string();
    skip_space();
    ++at_;  // the colon
    skip_space();
    return key;
  }
  void skip_value() {
    for (int depth = 0; at_ < text_.size();) {
      const char c = peek();
      if (c == '"') {
        skip_string();
      } else if (depth == 0 && (c == ',' || c == '}' || c == ']')) {
        return;
      } else {
        depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
        ++at_;
      }
      if (depth == 0 && (c == '"' || c == '}' || c == ']')) return;
    }
  }

  std::string_view text_;
  size_t at_ = 0, place_ = 0;
};

}  // namespace

int64_t line_of(std::string_view text, std::span<const JsonStep> path) {
  Walker walker(text);
  for (const JsonStep& step : path)
    if (!walker.enter(step)) break;
  return 1 + std::count(text.begin(), text.begin() + static_cast<int64_t>(walker.place()), '\n');
}

}  // namespace tessera
