#include "data/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "core/error.h"
#include "data/tokenizer/unicode.h"

namespace tessera::tokenizer {
namespace {

// PCRE2 10.42 counts U+180E as white space and no marks as word characters; Oniguruma has it the other way round.
// The ranges are the circled and squared letters, which have the Alphabetic property without being letters.
constexpr std::string_view kSpace = R"(\p{Z}\t-\r\x85)";
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";

/// Spells out \s and \w (everywhere) and \S and \W (outside of character classes).
std::string spell_out_classes(std::string_view pattern) {
  std::string result;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char kind = pattern[++i];
      const bool negated = kind == 'S' || kind == 'W';
      const bool known = kind == 's' || kind == 'w' || (negated && !in_class);
      if (!known)
        result.append({c, kind});
      else {
        const std::string_view set = kind == 's' || kind == 'S' ? kSpace : kWord;
        if (in_class)
          result += set;
        else
          result.append(negated ? "[^" : "[").append(set).append("]");
      }
      continue;
    }
    if (in_class && pattern.substr(i, 2) == "[:") {  // a POSIX name: "[[:alpha:]]"
      const size_t end = std::min(pattern.find(":]", i), pattern.size() - 2);
      result += pattern.substr(i, end + 2 - i);
      i = end + 1;
      continue;
    }
    if (in_class && (c == '[' || pattern.substr(i, 2) == "&&")) {
      throw UserError(
          "", fmt::format("the regular expression \"{}\" has a set inside of a set, which is not supported", pattern));
    }
    if (c == '[') {
      in_class = true;
      // A bracket right after "[" or "[^" is a member, not the end.
      result += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') result += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') result += pattern[++i];
      continue;
    }
    if (c == ']') in_class = false;
    result += c;
  }
  return result;
}

std::string error_text(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

}  // namespace

void Regex::Free::operator()(void* code) const { pcre2_code_free(static_cast<pcre2_code*>(code)); }

Regex::Regex(const std::string& pattern) : pattern_(pattern) {
  if (!is_valid_utf8(pattern)) throw UserError("", "a regular expression is not valid UTF-8");
  const std::string text = spell_out_classes(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
  if (!code_) {
    throw UserError("", fmt::format("the regular expression \"{}\" is not valid: {} at byte {} of \"{}\"", pattern,
                                    error_text(error), offset, text));
  }
  // Without JIT support the interpreter does the same, more slowly.
  pcre2_jit_compile(static_cast<pcre2_code*>(code_.get()), PCRE2_JIT_COMPLETE);
}

Regex Regex::literal(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    const bool plain = (c & 0x80) || std::string_view("\\^$.|?*+()[]{}-#/ ").find(c) == std::string_view::npos;
    if (!plain) pattern += '\\';
    pattern += c;
  }
  return Regex(pattern);
}

void Regex::find_all(std::string_view text, std::vector<Range>& matches) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create(1, nullptr));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(match.get());
  size_t from = 0, last_end = std::string_view::npos;
  while (from <= text.size()) {
    // Without NO_UTF_CHECK each call would read the whole rest of the text.
    int status = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (status == PCRE2_ERROR_JIT_STACKLIMIT) {
      status = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match.get(), nullptr);
    }
    if (status == PCRE2_ERROR_NOMATCH) return;
    if (status < 0) {
      throw UserError(
          "", fmt::format("the tokenizer's regular expression \"{}\" gave up at byte {} of a text of {} bytes: {}",
                          pattern_, from, text.size(), error_text(status)));
    }
    const Range range{found[0], found[1]};
    if (range.begin == range.end && range.end == last_end) {
      from += from < text.size() ? character_length(text[from]) : 1;
      continue;
    }
    matches.push_back(range);
    from = last_end = range.end;
  }
}

std::string Regex::replace_all(std::string_view text, std::string_view content) const {
  std::vector<Range> matches;
  find_all(text, matches);
  std::string result;
  result.reserve(text.size());
  size_t done = 0;
  for (const Range& match : matches) {
    result.append(text.substr(done, match.begin - done)).append(content);
    done = match.end;
  }
  return result.append(text.substr(done));
}

}  // namespace tessera::tokenizer
