#include "train/html_page.h"

#include <fmt/core.h>

#include "train/chart.h"

namespace tessera {
namespace {

// Colours follow the reader's setting, light or dark. Curves differ in their dashes, too, for readers who see no
// colours.
constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1c; --rule: #d5d5d5; --first: #1f66ad; --second: #b34a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e6e6e6; --rule: #3b3f45; --first: #7db9f2; --second: #f5a55c; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem 1.5rem .25rem 0; border-bottom: 1px solid var(--rule); }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; } th { font-weight: 600; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; } svg text { fill: currentColor; } .grid { stroke: var(--rule); }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .curve-0 { stroke: var(--first); } .curve-1 { stroke: var(--second); }
circle.curve-0 { fill: var(--first); } circle.curve-1 { fill: var(--second); } pre { overflow-x: auto; border: 1px solid var(--rule); padding: .8rem; }
)";

}  // namespace

std::string html_page(const std::string& title, const std::string& body, std::string_view style) {
  const std::string name = escape_html(title);
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>" +
         name + "</title>\n<style>" + std::string(kStyle) + std::string(style) +
         "</style>\n</head>\n<body>\n<main>\n<h1>" + name + "</h1>\n" + body + "</main>\n</body>\n</html>\n";
}

std::string html_heading(const std::string& text) { return "<h2>" + escape_html(text) + "</h2>\n"; }

std::string html_table(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string html = "<table>\n";
  for (const auto& [name, value] : rows)
    html += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape_html(name), escape_html(value));
  return html + "</table>\n";
}

}  // namespace tessera
