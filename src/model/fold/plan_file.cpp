#include "model/fold/plan_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "io/files.h"
#include "io/json_file.h"
#include "model/fold/plan_check.h"

namespace tessera {
namespace {

constexpr std::string_view kFormat = "tessera fold plan";
constexpr int64_t kVersion = 1;

/// The text of a plan, and what is told of a fault in it: its line.
class PlanReader {
 public:
  PlanReader(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {}

  [[noreturn]] void refuse(const PlanFault& fault) const {
    throw UserError(fmt::format("fold: {}:{}", where_, line_of(text_, fault.at)), fault.what, fault.hint);
  }
  [[noreturn]] void refuse(const JsonPath& at, const std::string& what, const std::string& hint = {}) const {
    refuse(PlanFault{at, what, hint});
  }

  /// What `read` makes of a value; a value of another kind is told with its place.
  template <class Read> auto at(const JsonPath& path, Read read) const {
    try {
      return read();
    } catch (const UserError& error) {
      if (!error.where().empty()) throw;
      refuse(path, path.empty() ? error.message() : fmt::format("{}: {}", name_of(path), error.message()));
    }
  }

  /// An object of these keys and no other.
  void require_keys(const Json& json, const JsonPath& path, const std::vector<std::string>& known) const {
    for (const auto& [key, value] : at(path, [&] { return json.members(); })) {
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      JsonPath place = path;
      place.emplace_back(key);
      const std::string near = nearest_name(key, known);
      refuse(place, fmt::format("unknown key \"{}\"", key),
             near.empty() ? fmt::format("known keys: {}", fmt::join(known, ", "))
                          : fmt::format("did you mean \"{}\"?", near));
    }
  }

  std::vector<int64_t> integers(const Json& json, const JsonPath& path) const {
    std::vector<int64_t> numbers;
    for (const Json& item : at(path, [&] { return json.items(); }))
      numbers.push_back(at(inside(path, numbers.size()), [&] { return item.as_integer(); }));
    return numbers;
  }

  static JsonPath inside(JsonPath path, size_t index) {
    path.emplace_back(static_cast<int64_t>(index));
    return path;
  }

 private:
  /// "groups[3].parent"
  static std::string name_of(const JsonPath& path) {
    std::string name;
    for (const JsonStep& step : path)
      name += std::holds_alternative<int64_t>(step) ? fmt::format("[{}]", std::get<int64_t>(step))
                                                    : (name.empty() ? "" : ".") + std::get<std::string>(step);
    return name;
  }

  std::string_view text_;
  std::string where_;
};

/// The value whose name a plan spells. @throws UserError for another
template <class Enum> Enum value_named(const std::string& spelled, std::initializer_list<Enum> values) {
  std::string names;
  for (const Enum value : values) {
    if (name_of(value) == spelled) return value;
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", name_of(value));
  }
  throw UserError("", fmt::format("\"{}\" is none of {}", spelled, names));
}

void require_format(const PlanReader& reader, const Json& json) {
  reader.require_keys(json, {},
                      {"format", "version", "base", "removed", "removed_halves", "groups", "child", "history"});
  reader.at({}, [&] { return json.at("format"), json.at("version"); });
  const std::string format = reader.at({"format"}, [&] { return json.at("format").as_string(); });
  if (format != kFormat) reader.refuse({"format"}, fmt::format("format \"{}\", expected \"{}\"", format, kFormat));
  const int64_t version = reader.at({"version"}, [&] { return json.at("version").as_integer(); });
  if (version != kVersion)
    reader.refuse({"version"}, fmt::format("version {}; this program reads {}", version, kVersion));
  reader.at({}, [&] {
    for (const char* key : {"base", "removed", "removed_halves", "groups", "child"}) json.at(key);
    return 0;
  });
}

FoldBase read_base(const PlanReader& reader, const Json& json) {
  const JsonPath path = {"base"};
  reader.require_keys(json, path, {"fingerprint", "layers", "model_type"});
  return reader.at(path, [&] {
    const Json* fingerprint = json.find("fingerprint");
    return FoldBase{.fingerprint = fingerprint ? fingerprint->as_string() : "",
                    .layers = json.at("layers").as_integer(),
                    .model_type = json.at("model_type").as_string()};
  });
}

std::vector<RemovedHalf> read_halves(const PlanReader& reader, const Json& json) {
  std::vector<RemovedHalf> halves;
  for (const Json& item : reader.at({"removed_halves"}, [&] { return json.items(); })) {
    const JsonPath path = PlanReader::inside({"removed_halves"}, halves.size());
    reader.require_keys(item, path, {"block", "part"});
    halves.push_back(reader.at(path, [&] {
      return RemovedHalf{item.at("block").as_integer(),
                         value_named(item.at("part").as_string(), {BlockHalf::attention, BlockHalf::mlp})};
    }));
  }
  return halves;
}

FoldGroup read_group(const PlanReader& reader, const Json& json, const JsonPath& path) {
  reader.require_keys(json, path, {"blocks", "parent", "values"});
  FoldGroup group;
  JsonPath blocks = path;
  blocks.emplace_back("blocks");
  group.blocks = reader.integers(reader.at(path, [&] { return json.at("blocks"); }), blocks);
  const bool is_single = group.blocks.size() == 1;
  return reader.at(path, [&] {
    if (const Json* values = json.find("values"); values || !is_single)
      group.values = value_named((values ? *values : json.at("values")).as_string(),
                                 {GroupValues::own, GroupValues::mean, GroupValues::wmean, GroupValues::trained});
    if (const Json* parent = json.find("parent"))
      group.parent = parent->as_integer();
    else if (is_single && (group.values == GroupValues::own || group.values == GroupValues::trained))
      group.parent = group.blocks[0];
    return group;
  });
}

FoldChild read_child(const PlanReader& reader, const Json& json) {
  const JsonPath path = {"child"};
  reader.require_keys(json, path, {"level", "rank"});
  return reader.at(path, [&] {
    return FoldChild{value_named(json.at("level").as_string(), {ChildLevel::tie, ChildLevel::norm, ChildLevel::scale,
                                                                ChildLevel::lora, ChildLevel::mos}),
                     json.at("rank").as_integer()};
  });
}

Json array_of(const std::vector<int64_t>& numbers) {
  Json array = Json::array();
  for (const int64_t number : numbers) array.push_back(number);
  return array;
}

Json group_json(const FoldGroup& group) {
  Json json = Json::object().set("blocks", array_of(group.blocks));
  if (group.blocks.size() > 1 && group.parent) json.set("parent", *group.parent);
  if (group.blocks.size() > 1 || group.values != GroupValues::own) json.set("values", name_of(group.values));
  return json;
}

/// A container with each of its entries on a line.
std::string lines_text(const Json& json) {
  std::string text;
  const auto add = [&](const std::string& line) { text += fmt::format("{}\n    {}", text.empty() ? "" : ",", line); };
  if (json.is_array())
    for (const Json& item : json.items()) add(item.dump());
  else
    for (const auto& [key, value] : json.members()) add(Json(key).dump() + ": " + value.dump());
  const std::string_view ends = json.is_array() ? "[]" : "{}";
  return text.empty() ? std::string(ends) : fmt::format("{}{}\n  {}", ends[0], text, ends[1]);
}

}  // namespace

FoldPlan parse_fold_plan(std::string_view text, const std::string& where, const std::optional<FoldBase>& base) {
  const Json json = parse_configuration(text, "fold: " + where);
  const PlanReader reader(text, where);
  require_format(reader, json);
  FoldPlan plan;
  plan.base = read_base(reader, json.at("base"));
  plan.removed = reader.integers(json.at("removed"), {"removed"});
  plan.removed_halves = read_halves(reader, json.at("removed_halves"));
  for (const Json& group : reader.at({"groups"}, [&] { return json.at("groups").items(); }))
    plan.groups.push_back(read_group(reader, group, PlanReader::inside({"groups"}, plan.groups.size())));
  plan.child = read_child(reader, json.at("child"));
  if (const Json* history = json.find("history")) {
    reader.at({"history"}, [&] { return history->members(); });
    plan.history = *history;
  }
  // First: block numbers of a plan for another model are not worth being told of.
  if (const auto fault = base ? fault_beside(plan, *base) : std::nullopt) reader.refuse(*fault);
  if (const auto fault = fault_of(plan)) reader.refuse(*fault);
  return plan;
}

FoldPlan read_fold_plan(const std::filesystem::path& file, const std::optional<FoldBase>& base) {
  return parse_fold_plan(read_text_file(file), file.string(), base);
}

Json fold_plan_json(const FoldPlan& plan) {
  Json base = Json::object();
  if (!plan.base.fingerprint.empty()) base.set("fingerprint", plan.base.fingerprint);
  base.set("layers", plan.base.layers).set("model_type", plan.base.model_type);
  Json halves = Json::array(), groups = Json::array();
  for (const RemovedHalf& half : plan.removed_halves)
    halves.push_back(Json::object().set("block", half.block).set("part", name_of(half.part)));
  for (const FoldGroup& group : plan.groups) groups.push_back(group_json(group));
  Json json = Json::object()
                  .set("format", kFormat)
                  .set("version", kVersion)
                  .set("base", base)
                  .set("removed", array_of(plan.removed))
                  .set("removed_halves", halves)
                  .set("groups", groups)
                  .set("child", Json::object().set("level", name_of(plan.child.level)).set("rank", plan.child.rank));
  if (!plan.history.is_null()) json.set("history", plan.history);
  return json;
}

std::string fold_plan_text(const FoldPlan& plan) {
  const auto fault = fault_of(plan);
  TS_CHECK(!fault, "{}", fault->what);
  const Json json = fold_plan_json(plan);
  std::string text;
  for (const auto& [key, value] : json.members())
    text += fmt::format("{}\n  \"{}\": {}", text.empty() ? "{" : ",", key,
                        key == "groups" || key == "history" ? lines_text(value) : value.dump());
  return text + "\n}\n";
}

void write_fold_plan(const std::filesystem::path& file, const FoldPlan& plan) {
  write_text_file(file, fold_plan_text(plan));
}

}  // namespace tessera
