#pragma once
// trainer log RUN: what a log of rounds holds.

#include <cstdint>
#include <filesystem>
#include <optional>

namespace tessera {

/// Prints it, for people or as one JSON object; nothing is written. @return the exit code
/// @param run   a run's folder, or its log's
/// @param last  rounds of the table; when not given 10, or all in JSON
int log_command(const std::filesystem::path& run, std::optional<int64_t> last, bool as_json);

}  // namespace tessera
