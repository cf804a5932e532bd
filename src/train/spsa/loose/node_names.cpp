#include "train/spsa/loose/node_names.h"

#include <fmt/core.h>

#include <charconv>

#include "core/error.h"
#include "core/json.h"
#include "io/files.h"
#include "steplog/nats_settings.h"

namespace tessera {
namespace {

std::optional<uint32_t> number_of(const std::string& text) {
  uint32_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

}  // namespace

NamesOfMachines read_node_names(const std::filesystem::path& file, const std::string& run) {
  NamesOfMachines names;
  if (!std::filesystem::exists(file)) return names;
  try {
    const Json json = Json::parse(read_text_file(file), file.string());
    if (json.at("run").as_string() != run) return names;
    for (const auto& [machine, name] : json.at("nodes").members())
      if (const auto number = number_of(machine); number && is_engine_name(name.as_string()))
        names.emplace(*number, name.as_string());
  } catch (const UserError&) {  // nothing hangs on it
    names.clear();
  }
  return names;
}

NodeNames::NodeNames(std::filesystem::path file, const RunId& run)
    : file_(std::move(file)), run_(hex_text(run.sha256)), names_(read_node_names(file_, run_)) {}

void NodeNames::add(uint32_t machine, const std::string& name) {
  is_changed_ = names_.emplace(machine, name).second || is_changed_;
}

void NodeNames::write() {
  if (!is_changed_) return;
  is_changed_ = false;
  Json::Object nodes;
  for (const auto& [machine, name] : names_) nodes.emplace_back(fmt::format("{}", machine), name);
  try {
    write_text_file(file_, Json::object().set("nodes", std::move(nodes)).set("run", run_).dump(1) + "\n");
  } catch (const UserError&) {  // tried again with the next name
  }
}

std::string machine_in_words(uint32_t machine, const NamesOfMachines& names) {
  const auto name = names.find(machine);
  return name == names.end() ? fmt::format("{}", machine) : fmt::format("{} ({})", machine, name->second);
}

}  // namespace tessera
