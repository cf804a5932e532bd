#include "infer/requests/token_texts.h"

#include <algorithm>

namespace tessera {

std::string token_text(const Tokenizer& tokenizer, std::span<const int32_t> before, int32_t id) {
  constexpr size_t kLookBack = 4;  // what stands further in front changes no token's text
  return tokenizer.decode_after(before.last(std::min(before.size(), kLookBack)), std::span(&id, 1));
}

Json token_bytes(const std::string& text) {
  if (text.find("\xEF\xBF\xBD") != std::string::npos) return {};
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  return bytes;
}

int64_t characters_of(const std::string& text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

}  // namespace tessera
