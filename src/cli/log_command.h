#pragma once
// trainer log RUN: what a log of rounds holds.

#include <cstdint>
#include <filesystem>
#include <optional>

namespace tessera {

struct LogRequest {
  std::optional<int64_t> last;  // rounds of the table; when not given 10, or all in JSON
  bool as_json = false;         // one object, in place of text for people
  bool follows = false;         // goes on with each round that is written, in JSON an object a line, to the log's END
};

/// Prints it; nothing is written. @param run  a run's folder, or its log's. @return the exit code
int log_command(const std::filesystem::path& run, const LogRequest&);

}  // namespace tessera
