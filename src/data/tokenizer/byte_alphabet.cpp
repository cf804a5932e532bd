#include "data/tokenizer/byte_alphabet.h"

#include "data/tokenizer/unicode.h"

namespace tessera::tokenizer {

const ByteAlphabet& ByteAlphabet::get() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

ByteAlphabet::ByteAlphabet() {
  bytes_.fill(-1);
  int32_t next_stand_in = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    // 0xAD is the soft hyphen, which shows nothing.
    const bool prints = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    const int32_t code_point = prints ? byte : next_stand_in++;
    append_utf8(characters_[byte], code_point);
    bytes_[code_point] = static_cast<int16_t>(byte);
  }
}

void ByteAlphabet::append_bytes(std::string& bytes, std::string_view token) const {
  const size_t before = bytes.size();
  for (std::string_view rest = token; !rest.empty();) {
    const CodePoint next = first_code_point(rest);
    // A token that is not spelled in the alphabet, an added one, say, is text as it is.
    if (next.value < 0 || next.value >= kCodePoints || bytes_[next.value] < 0) {
      bytes.resize(before);
      bytes += token;
      return;
    }
    bytes += static_cast<char>(bytes_[next.value]);
    rest.remove_prefix(next.length);
  }
}

}  // namespace tessera::tokenizer
