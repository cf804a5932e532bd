#pragma once
// Pages as the program writes them, looked at by tests.

#include <regex>
#include <string>
#include <vector>

namespace tessera::test {

/// Whether tags nest, attributes are quoted, and & and < stand for themselves nowhere. Empty: all is well.
inline std::string html_fault(std::string text) {
  const std::string doctype = "<!DOCTYPE html>";
  if (text.rfind(doctype, 0) == 0) text.erase(0, doctype.size());
  std::vector<std::string> open;
  const std::regex tag(R"re(<(/?)([a-z1-9]+)((?: [a-zA-Z0-9-]+="[^"<]*")*)(/?)>)re"),
      entity("&(?:amp|lt|gt|quot|#39);");
  const std::string left = std::regex_replace(text, entity, "");
  size_t end = 0;
  for (auto at = std::sregex_iterator(left.begin(), left.end(), tag); at != std::sregex_iterator(); ++at) {
    const auto between = left.substr(end, static_cast<size_t>(at->position()) - end);
    if (between.find_first_of("<&") != std::string::npos) return "stray mark in \"" + between + "\"";
    end = static_cast<size_t>(at->position() + at->length());
    if ((*at)[1].length()) {
      if (open.empty() || open.back() != (*at)[2]) return "</" + (*at)[2].str() + "> closes nothing";
      open.pop_back();
    } else if (!(*at)[4].length()) {
      open.push_back((*at)[2]);
    }
  }
  if (left.find_first_of("<&", end) != std::string::npos) return "stray mark at the end";
  return open.empty() ? "" : "<" + open.back() + "> stays open";
}

/// What a reader sees of it.
inline std::string html_text(const std::string& page) { return std::regex_replace(page, std::regex("<[^>]*>"), " "); }

}  // namespace tessera::test
