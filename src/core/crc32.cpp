#include "core/crc32.h"

#include <array>

namespace tessera {
namespace {

using Table = std::array<uint32_t, 256>;

constexpr Table table_of(uint32_t polynomial) {
  Table table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? polynomial : 0u);
    table[byte] = crc;
  }
  return table;
}

uint32_t checksum(const Table& table, std::span<const std::byte> bytes, uint32_t before) {
  uint32_t crc = ~before;
  for (const std::byte byte : bytes) crc = (crc >> 8) ^ table[(crc ^ std::to_integer<uint32_t>(byte)) & 0xFF];
  return ~crc;
}

}  // namespace

uint32_t crc32(std::string_view bytes, uint32_t before) {
  static constexpr Table table = table_of(0xEDB88320u);
  return checksum(table, std::as_bytes(std::span(bytes)), before);
}

uint32_t crc32c(std::span<const std::byte> bytes) {
  static constexpr Table table = table_of(0x82F63B78u);
  return checksum(table, bytes, 0);
}

uint32_t crc32c(std::string_view bytes) { return crc32c(std::as_bytes(std::span(bytes))); }

}  // namespace tessera
