#pragma once
// UTF-8 and the few facts about Unicode that tokenizers need.

#include <cstdint>
#include <string>
#include <string_view>

namespace tessera::tokenizer {

struct CodePoint {
  int32_t value;  // -1: the bytes form no character
  int length;     // bytes read, at least 1
};

/// The character at the front of `text` (not empty). A fault spans the longest start of a valid character, or one byte,
/// so that replacing every fault by U+FFFD gives what Python's and Rust's lossy decoders give.
CodePoint first_code_point(std::string_view text);

/// Bytes of the character at the front of valid UTF-8.
inline int character_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

void append_utf8(std::string& text, int32_t code_point);
bool is_valid_utf8(std::string_view text);

/// `text` with every fault replaced by U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };

/// The normal form of valid UTF-8 (Unicode Standard Annex 15).
std::string normal_form(const std::string& text, NormalForm form);

/// Each character's lower-case mapping, without regard to its neighbours.
std::string lowercase(std::string_view text);

bool is_white_space(int32_t code_point);

/// Letter, mark, digit, connecting punctuation, circled or squared letter, or one of the two joiners: what a word is
/// made of to the library that files were written for, where no pattern of a file asks.
/// (There \w has no joiners, but ² ³ ¹ ¼ ½ ¾.)
bool is_word_character(int32_t code_point);

/// Whether Unicode has given the code point a character, as far as the library knows that is linked here.
bool is_assigned(int32_t code_point);

/// Bytes of white space at the front (at the back) of valid UTF-8.
size_t leading_white_space(std::string_view text);
size_t trailing_white_space(std::string_view text);

/// The last character of valid UTF-8 (not empty).
CodePoint last_code_point(std::string_view text);

}  // namespace tessera::tokenizer
