// Nearly all text is ASCII or valid UTF-8: what has to be asked of Unicode's tables is asked of utf8proc, and only for
// characters that are not plain.

#include "data/tokenizer/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "core/error.h"

namespace tessera::tokenizer {
namespace {

/// utf8proc's results are memory of malloc.
struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

/// All bytes or-ed together: a loop without a branch.
bool is_ascii(std::string_view text) {
  unsigned char all = 0;
  for (const char c : text) all |= static_cast<unsigned char>(c);
  return all < 0x80;
}

}  // namespace

CodePoint first_code_point(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
  const int lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  // 0xC0 and 0xC1 could only begin overlong forms of ASCII; above 0xF4 lie values beyond U+10FFFF.
  if (lead < 0xC2 || lead > 0xF4) return {-1, 1};
  const int length = character_length(text[0]);
  // The second byte's range is what rules out overlong forms, surrogates and values above U+10FFFF.
  const int lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const int highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < lowest || byte(1) > highest) return {-1, 1};
  int32_t value = ((lead & (0x7F >> length)) << 6) | (byte(1) & 0x3F);
  for (int i = 2; i < length; ++i) {
    // A fault behind a good beginning: all of that beginning is one fault.
    if ((byte(i) & 0xC0) != 0x80) return {-1, i};
    value = (value << 6) | (byte(i) & 0x3F);
  }
  return {value, length};
}

void append_utf8(std::string& text, int32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(code_point, bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

bool is_valid_utf8(std::string_view text) {
  if (is_ascii(text)) return true;
  while (!text.empty()) {
    const CodePoint next = first_code_point(text);
    if (next.value < 0) return false;
    text.remove_prefix(next.length);
  }
  return true;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const CodePoint next = first_code_point(text);
    if (next.value < 0)
      valid += "\xEF\xBF\xBD";
    else
      valid += text.substr(0, next.length);
    text.remove_prefix(next.length);
  }
  return valid;
}

std::string normal_form(const std::string& text, NormalForm form) {
  // ASCII is its own normal form, and most text.
  if (is_ascii(text)) return text;
  int options = UTF8PROC_STABLE;
  options |= form == NormalForm::nfc || form == NormalForm::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::nfkc || form == NormalForm::nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* mapped = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, Free> owner(mapped);
  TS_CHECK(length >= 0, "utf8proc: {}", utf8proc_errmsg(length));
  return std::string(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
}

std::string lowercase(std::string_view text) {
  constexpr int32_t kCapitalIWithDot = 0x130;  // the one letter whose lower case is two characters
  std::string lower;
  lower.reserve(text.size());
  while (!text.empty()) {
    const CodePoint next = first_code_point(text);
    if (next.value == kCapitalIWithDot)
      lower += "i\xCC\x87";
    else
      append_utf8(lower, utf8proc_tolower(next.value));
    text.remove_prefix(next.length);
  }
  return lower;
}

bool is_white_space(int32_t code_point) {
  // Tab, line feed, vertical tab, form feed and carriage return; then the next-line character, and Unicode's
  // separators.
  if (code_point >= 9 && code_point <= 13) return true;
  if (code_point == 0x85) return true;
  const auto category = utf8proc_category(code_point);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

CodePoint last_code_point(std::string_view text) {
  size_t begin = text.size() - 1;
  // Back over the bytes that continue a character, to the one that begins it.
  while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
  return first_code_point(text.substr(begin));
}

size_t leading_white_space(std::string_view text) {
  size_t bytes = 0;
  while (bytes < text.size()) {
    const CodePoint next = first_code_point(text.substr(bytes));
    if (!is_white_space(next.value)) break;
    bytes += next.length;
  }
  return bytes;
}

size_t trailing_white_space(std::string_view text) {
  size_t bytes = 0;
  while (bytes < text.size()) {
    const CodePoint last = last_code_point(text.substr(0, text.size() - bytes));
    if (!is_white_space(last.value)) break;
    bytes += last.length;
  }
  return bytes;
}

bool is_assigned(int32_t code_point) { return utf8proc_category(code_point) != UTF8PROC_CATEGORY_CN; }

bool is_word_character(int32_t code_point) {
  const auto is_between = [code_point](int32_t first, int32_t last) {
    return first <= code_point && code_point <= last;
  };
  if (is_between(0x200C, 0x200D) || is_between(0x24B6, 0x24E9) || is_between(0x1F130, 0x1F149) ||
      is_between(0x1F150, 0x1F169) || is_between(0x1F170, 0x1F189))
    return true;
  switch (utf8proc_category(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

}  // namespace tessera::tokenizer
