#include "steplog/transport.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

constexpr std::string_view kAuto = "auto";

}  // namespace

const Transport& transport_named(const std::string& name) {
  const auto& list = transports();
  // "auto" is the first of the list, so that the list's order is the preference.
  if (name == kAuto) return list.front();
  const auto found = std::find_if(list.begin(), list.end(), [&](const Transport& t) { return t.name == name; });
  TS_CHECK(found != list.end(), "transport \"{}\" passed the recipe's check", name);
  return *found;
}

std::vector<std::string> transport_choices() {
  std::vector<std::string> names{std::string(kAuto)};
  for (const Transport& transport : transports()) names.emplace_back(transport.name);
  return names;
}

std::string transport_help() {
  std::string text = fmt::format("{}, ", kAuto);
  for (const Transport& transport : transports())
    text += fmt::format("{}{}: {}", transport.name == transports().front().name ? "" : "; ", transport.name,
                        transport.help);
  return text;
}

}  // namespace tessera
