#pragma once
// What the program's pages have in common: one file without scripts or anything from outside, readable in light and
// dark. Curves and pictures stand in them as SVG text (chart.h).

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera {

/// A page in English. Its style has the colours --paper, --ink, --rule, --first and --second, which follow the reader's
/// setting, and the classes of charts.
/// @param title  text, also the heading
/// @param body   HTML
/// @param style  further CSS; may be empty
std::string html_page(const std::string& title, const std::string& body, std::string_view style = {});

/// A heading below the title. @param text  not yet escaped
std::string html_heading(const std::string& text);

/// A table of two columns, the first of them names. @param rows  names and values, not yet escaped
std::string html_table(const std::vector<std::pair<std::string, std::string>>& rows);

}  // namespace tessera
