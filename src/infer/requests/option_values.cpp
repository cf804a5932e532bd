#include "infer/requests/option_values.h"

#include <cmath>
#include <limits>

#include "core/error.h"

namespace tessera {
namespace {

constexpr double kNoBound = std::numeric_limits<double>::max();

std::string range_in_words(double least, double most) {
  return most >= kNoBound ? fmt::format("a number of at least {}", least)
                          : fmt::format("a number from {} to {}", least, most);
}

}  // namespace

void NamedValue::refuse(const std::string& expected) const {
  constexpr size_t kShown = 60;
  std::string shown = value->dump();
  if (shown.size() > kShown) shown = fmt::format("{:.{}}..", shown, kShown);
  throw UserError("", fmt::format("\"{}\" is {}, expected {}", name, shown, expected));
}

bool NamedValue::truth() const {
  if (!value->is_bool()) refuse("true or false");
  return value->as_bool();
}

const std::string& NamedValue::text() const {
  if (!value->is_string()) refuse("a text");
  return value->as_string();
}

int64_t NamedValue::whole(int64_t least, int64_t most) const {
  if (!value->is_integer() || value->as_integer() < least || value->as_integer() > most)
    refuse(most == INT64_MAX ? fmt::format("a whole number from {} to 2^63 - 1", least)
                             : fmt::format("a whole number from {} to {}", least, most));
  return value->as_integer();
}

double NamedValue::number(double least, double most) const {
  if (!value->is_number()) refuse(range_in_words(least, most));
  const double found = value->as_number();
  if (!std::isfinite(found) || found < least || found > most) refuse(range_in_words(least, most));
  return found + 0.0;  // of two zeros the one without a sign
}

double NamedValue::positive(double most) const {
  if (!value->is_number() || !(value->as_number() > 0) || value->as_number() > most)
    refuse(fmt::format("a number above 0 and at most {}", most));
  return value->as_number();
}

std::vector<std::string> NamedValue::texts() const {
  std::vector<std::string> found;
  const auto take = [&](const Json& text) {
    if (!text.is_string() || text.as_string().empty()) refuse("a text or a list of texts, none of them empty");
    found.push_back(text.as_string());
  };
  if (value->is_array())
    for (const Json& item : value->items()) take(item);
  else
    take(*value);
  return found;
}

std::vector<int32_t> NamedValue::ids(int64_t vocab) const {
  const auto expected = [&] { return fmt::format("a list of token ids from 0 to {}", vocab - 1); };
  if (!value->is_array()) refuse(expected());
  std::vector<int32_t> found;
  found.reserve(value->items().size());
  for (const Json& item : value->items()) {
    if (!item.is_integer()) refuse(expected());
    if (item.as_integer() < 0 || item.as_integer() >= vocab)
      throw UserError("", fmt::format("\"{}\" has the token id {}, and the vocabulary has ids from 0 to {}", name,
                                      item.as_integer(), vocab - 1));
    found.push_back(static_cast<int32_t>(item.as_integer()));
  }
  return found;
}

std::vector<int32_t> NamedValue::id_or_ids(int64_t vocab) const {
  if (value->is_array()) return ids(vocab);
  return {static_cast<int32_t>(whole(0, vocab - 1))};
}

}  // namespace tessera
