#pragma once
// The part of report.html about a run whose machines come and go.

#include <filesystem>
#include <string>

namespace tessera {

/// Who was there, came and went, was silent or late, and what the engine lost: the facts of `trainer log`, from the log
/// in the run's folder. Empty for other runs, and for a log that cannot be read, which no report may hang on.
std::string attendance_html(const std::filesystem::path& run);

}  // namespace tessera
