#pragma once
// The checksums of event files, votes, records and journals.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace tessera {

/// CRC-32 (IEEE 802.3, reflected polynomial 0xEDB88320), as gzip and zip have it: of "123456789" 0xCBF43926.
/// @param before  the checksum of what stands in front, for bytes in parts
uint32_t crc32(std::string_view bytes, uint32_t before = 0);

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78). RFC 3720, appendix B.4.
uint32_t crc32c(std::span<const std::byte> bytes);
uint32_t crc32c(std::string_view bytes);

}  // namespace tessera
