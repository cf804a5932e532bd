// Patterns come from recipes and tokenizer files, and may be slow by mistake or on purpose: PCRE2's own limits, and for
// names a lower one, end a search that would not end.

#include "io/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/error.h"

namespace tessera {
namespace {

constexpr uint32_t kMostStepsInAName = 1'000'000;

std::string error_text(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
using Match = std::unique_ptr<pcre2_match_data, FreeMatch>;

struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

int64_t character_bytes(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// A search by the compiled code, or by the interpreter where that runs out of its stack.
int search(const void* code, std::string_view text, size_t from, uint32_t options, const Match& match,
           pcre2_match_context* context) {
  const auto run = [&](uint32_t more) {
    return pcre2_match(static_cast<const pcre2_code*>(code), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                       from, options | more, match.get(), context);
  };
  // Deep recursion can exceed the small stack of compiled code. The interpreter keeps its state on the heap.
  const int status = run(0);
  return status == PCRE2_ERROR_JIT_STACKLIMIT ? run(PCRE2_NO_JIT) : status;
}

}  // namespace

void Regex::Free::operator()(void* code) const { pcre2_code_free(static_cast<pcre2_code*>(code)); }

Regex::Regex(const std::string& pattern, Anchors anchors) : pattern_(pattern) {
  const uint32_t lines = anchors == Anchors::lines ? PCRE2_MULTILINE : 0;
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                            // Text is UTF-8, classes such as \w go by Unicode, and \C, which would match half a
                            // character, is off.
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | lines, &error, &offset, nullptr));
  if (!code_) throw UserError("", fmt::format("{} at byte {}", error_text(error), offset));
  // Without JIT support the interpreter does the same, more slowly.
  pcre2_jit_compile(static_cast<pcre2_code*>(code_.get()), PCRE2_JIT_COMPLETE);
}

bool Regex::is_found_in(std::string_view name) const {
  const Match match(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, FreeContext> context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMostStepsInAName);
  const int status = search(code_.get(), name, 0, 0, match, context.get());
  // The 21 codes for faults of UTF-8 lie next to each other.
  const bool is_text = status > PCRE2_ERROR_UTF8_ERR1 || status < PCRE2_ERROR_UTF8_ERR21;
  if (status >= 0 || status == PCRE2_ERROR_NOMATCH || !is_text) return status >= 0;
  throw UserError(
      "", fmt::format("the search for \"{:.80}\" in \"{}\" was given up: {}", pattern_, name, error_text(status)),
      "a pattern of a name needs no nested repetitions");
}

void Regex::find_all(std::string_view text, std::vector<TextRange>& matches) const {
  const Match match(pcre2_match_data_create(1, nullptr));
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(match.get());
  size_t from = 0, last_end = std::string_view::npos;
  while (from <= text.size()) {
    // Without NO_UTF_CHECK each call would read the whole rest of the text.
    const int status = search(code_.get(), text, from, PCRE2_NO_UTF_CHECK, match, nullptr);
    if (status == PCRE2_ERROR_NOMATCH) return;
    if (status < 0)
      throw UserError(
          "", fmt::format("gave up at byte {} of a text of {} bytes: {}", from, text.size(), error_text(status)));
    const TextRange range{found[0], found[1]};
    if (range.begin == range.end && range.end == last_end) {
      // Nothing may match twice at one place: one character further.
      from += from < text.size() ? static_cast<size_t>(character_bytes(text[from])) : 1;
      continue;
    }
    matches.push_back(range);
    from = last_end = range.end;
  }
}

}  // namespace tessera
