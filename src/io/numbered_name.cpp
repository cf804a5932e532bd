#include "io/numbered_name.h"

#include <fmt/core.h>

#include <charconv>

#include "core/error.h"

namespace tessera {

std::string numbered_name(std::string_view prefix, int64_t number, std::string_view suffix) {
  return fmt::format("{}{:08}{}", prefix, number, suffix);
}

std::optional<int64_t> number_in_name(std::string_view name, std::string_view prefix, std::string_view suffix) {
  if (name.size() < prefix.size() + suffix.size()) return std::nullopt;
  const char *begin = name.data() + prefix.size(), *end = name.data() + name.size() - suffix.size();
  int64_t number = 0;
  const auto [stop, fault] = std::from_chars(begin, end, number);
  // Made again and compared: other spellings of the number ("7", "0000000007") are somebody's own names.
  if (fault != std::errc() || stop != end || number < 0 || numbered_name(prefix, number, suffix) != name)
    return std::nullopt;
  return number;
}

}  // namespace tessera
