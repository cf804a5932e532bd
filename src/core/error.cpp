#include "core/error.h"

#include <algorithm>
#include <cctype>
#include <numeric>

namespace tessera {
namespace {

bool is_key_character(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.'; }

/// Whether `text` has the key as a word of its own.
bool names_key(std::string_view text, std::string_view key) {
  for (size_t at = text.find(key); at != std::string_view::npos; at = text.find(key, at + 1)) {
    const size_t end = at + key.size();
    if ((at == 0 || !is_key_character(text[at - 1])) && (end == text.size() || !is_key_character(text[end])))
      return true;
  }
  return false;
}

/// The place without a recipe key at its end ("command line: train.steps", "train.steps") that the message names
/// itself.
std::string place_of(const std::string& where, const std::string& what) {
  constexpr std::string_view kCommandLine = "command line: ";
  const bool is_typed = where.starts_with(kCommandLine);
  const std::string key = is_typed ? where.substr(kCommandLine.size()) : where;
  const bool is_key = std::all_of(key.begin(), key.end(), is_key_character) &&
                      (is_typed || (key.find('.') != std::string::npos && key.front() != '.'));
  if (key.empty() || !is_key || !names_key(what, key)) return where;
  return is_typed ? "command line" : "";
}

std::string join_message(const std::string& where, const std::string& what, const std::string& hint) {
  const std::string place = place_of(where, what);
  std::string text = place.empty() ? what : place + ": " + what;
  for (size_t begin = 0; begin < hint.size();) {
    const size_t end = std::min(hint.find('\n', begin), hint.size());
    text += "\n  " + hint.substr(begin, end - begin);
    begin = end + 1;
  }
  return text;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

}  // namespace

UserError::UserError(std::string where, std::string what, std::string hint)
    : std::runtime_error(join_message(where, what, hint)),
      where_(std::move(where)),
      message_(std::move(what)),
      hint_(std::move(hint)) {}

void fail_check(const char* file, int line, const char* condition, const std::string& details) {
  throw InternalError(fmt::format("{}:{}: check failed: {}: {}", file, line, condition, details));
}

std::string nearest_name(std::string_view found, const std::vector<std::string>& known) {
  std::string best;
  // Of a word of three letters or fewer two changes leave nearly nothing: "foo" is not nearly "mos".
  size_t best_distance = (found.size() <= 3 ? 1 : std::max<size_t>(found.size() / 2, 2)) + 1;
  for (const std::string& name : known) {
    // A prefix of a known name ("shards_per_vectr" ~ "shards") counts as near, whatever follows it.
    const bool is_prefix = found.size() >= 4 && name.size() >= 4 && found.substr(0, name.size()) == name;
    const size_t distance = is_prefix ? 1 : edit_distance(found, name);
    if (distance < best_distance) {
      best_distance = distance;
      best = name;
    }
  }
  return best;
}

}  // namespace tessera
