#pragma once
// Names that hold a number: "step-00001000.h5".

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

/// `prefix`, the number with zeros in front up to 8 digits (a larger one has more), `suffix`.
std::string numbered_name(std::string_view prefix, int64_t number, std::string_view suffix);

/// The number when `name` is what numbered_name makes of one, and nothing for all else: what users put beside such
/// files, copies under names of their own among them, is not taken for one.
/// To be compared as numbers: names sort wrongly past 8 digits.
std::optional<int64_t> number_in_name(std::string_view name, std::string_view prefix, std::string_view suffix);

}  // namespace tessera
