#pragma once
// Values as hexadecimal digits in lower case, for files that must give them back to the bit.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// The 16 digits of a double's bits: a decimal text would be rounded by some reader.
std::string hex_bits(double);
/// @throws UserError, without a place, when it is something else
double double_of_hex(const std::string& text);

/// Two digits a byte; nothing when it is something else.
std::optional<std::vector<std::byte>> bytes_of_hex(std::string_view text);

}  // namespace tessera
