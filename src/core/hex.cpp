#include "core/hex.h"

#include <bit>
#include <cstdint>

#include "core/error.h"

namespace tessera {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

}  // namespace

std::string hex_bits(double value) { return fmt::format("{:016x}", std::bit_cast<uint64_t>(value)); }

double double_of_hex(const std::string& text) {
  if (text.size() != 16 || text.find_first_not_of(kDigits) != std::string::npos)
    throw UserError("", fmt::format("\"{}\" is not the hexadecimal of 64 bits", text));
  return std::bit_cast<double>(uint64_t{std::stoull(text, nullptr, 16)});
}

std::optional<std::vector<std::byte>> bytes_of_hex(std::string_view text) {
  if (text.size() % 2 != 0 || text.find_first_not_of(kDigits) != std::string_view::npos) return std::nullopt;
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < text.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(16 * kDigits.find(text[i]) + kDigits.find(text[i + 1])));
  return bytes;
}

}  // namespace tessera
