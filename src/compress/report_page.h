#pragma once
// A report for readers: as a page, and as lines of the terminal. Both are made of report.json alone.

#include <string>
#include <vector>

#include "core/json.h"

namespace tessera {

/// report.html: the points side by side, the plan as a line a block, similarities and gates as pictures, commands. One
/// file without scripts or anything from outside, readable in light and dark.
/// @param title  the run's name
std::string report_page(const std::string& title, const Json& report);

/// A table of the points: perplexity, parameters stored, bytes on disk and resident, tokens a second.
std::vector<std::string> report_lines(const Json& report);

}  // namespace tessera
