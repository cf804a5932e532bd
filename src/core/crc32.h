#pragma once
// The checksum of journals of answers.

#include <cstdint>
#include <string_view>

namespace tessera {

/// CRC-32 (IEEE 802.3, reflected polynomial 0xEDB88320), as gzip and zip have it: of "123456789" 0xCBF43926.
/// @param before  the checksum of what stands in front, for a text in parts
uint32_t crc32(std::string_view bytes, uint32_t before = 0);

}  // namespace tessera
