#pragma once
// report.html: one page about a run, without scripts or anything from outside, so that it can be mailed. Page:
// docs/metrics.md.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace tessera {

/// The page: what was trained, the first and the last evaluation, curves, totals, the recipe.
/// @param title   the run's name
/// @param lines   of metrics.jsonl; with a "done" event the run is called finished, else stopped
/// @param recipe  TOML text of the resolved recipe
/// @param more    HTML that stands before the recipe: what only runs of some kinds have
std::string report_html(const std::string& title, const std::vector<Json>& lines, const std::string& recipe,
                        const std::string& more = "");

/// Writes report.html of a run folder from its metrics.jsonl and recipe.toml, and of loose nodes its log, atomically.
/// @throws UserError when it cannot
void write_report(const std::filesystem::path& folder);

}  // namespace tessera
