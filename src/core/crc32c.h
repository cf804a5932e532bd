#pragma once
// The checksum of event files, votes and records.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace tessera {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78). RFC 3720, appendix B.4.
uint32_t crc32c(std::span<const std::byte> bytes);
uint32_t crc32c(std::string_view bytes);

}  // namespace tessera
