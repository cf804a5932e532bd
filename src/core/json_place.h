#pragma once
// Where a value of a JSON text stands, so that a fault in a file that people write by hand names the line.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tessera {

/// From a value to one inside it: the key of a member, or the number of an element.
using JsonStep = std::variant<std::string, int64_t>;
using JsonPath = std::vector<JsonStep>;

/// The line, counted from 1, on which the value at `path` begins, or the member that holds it.
/// Of a path that leads nowhere: where the last value on it begins.
/// @param text  what Json::parse takes
int64_t line_of(std::string_view text, std::span<const JsonStep> path);

}  // namespace tessera
