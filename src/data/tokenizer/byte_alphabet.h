#pragma once
// The printable characters that stand for bytes in byte-level vocabularies (Radford et al. 2019): a byte that prints
// (in Latin-1) stands for itself, the n-th other byte is U+0100 + n. So "Ġ" is a space and "Ċ" a line end.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera::tokenizer {

class ByteAlphabet {
 public:
  static const ByteAlphabet& get();

  /// The character of a byte, in UTF-8.
  const std::string& character(uint8_t byte) const { return characters_[byte]; }

  /// The bytes that a token's characters stand for; the token's own bytes if one of them stands for none.
  void append_bytes(std::string& bytes, std::string_view token) const;

 private:
  // U+0100 and one for each of the 68 bytes that do not print.
  static constexpr int kCodePoints = 0x144;
  ByteAlphabet();
  std::array<std::string, 256> characters_;
  std::array<int16_t, kCodePoints> bytes_;  // of a code point; -1: none
};

}  // namespace tessera::tokenizer
