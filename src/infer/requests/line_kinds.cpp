#include "infer/requests/line_kinds.h"

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "infer/requests/request_options.h"

namespace tessera {
namespace {

bool begins_object(std::string_view line) {
  const size_t begin = line.find_first_not_of(" \t\r");
  return begin != std::string_view::npos && line[begin] == '{';
}

/// The object that a line is; none where it is something else, or no JSON at all.
std::optional<Json> object_of(std::string_view line) {
  // Most lines of text are told by their first character, without an exception.
  if (!begins_object(line)) return std::nullopt;
  try {
    return Json::parse(line, "");
  } catch (const UserError&) {
    return std::nullopt;
  }
}

bool has(const Json& object, std::string_view name) {
  return std::ranges::any_of(object.members(), [&](const auto& member) { return member.first == name; });
}

bool is_batch_name(std::string_view name) {
  static const std::set<std::string, std::less<>> names(batch_names().begin(), batch_names().end());
  return names.contains(name);
}

}  // namespace

const std::vector<std::string>& batch_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all = {"custom_id", "prompt", "messages", "prompt_token_ids", "prefix", "contexts"};
    all.insert(all.end(), option_names().begin(), option_names().end());
    return all;
  }();
  return names;
}

std::string_view in_words(RequestKind kind) {
  constexpr std::string_view kWords[] = {"text", "records of data", "batch lines", "lines of OpenAI's batches"};
  return kWords[static_cast<int>(kind)];
}

LineKinds::LineKinds(const DataConfig& config)
    : data_members_({config.text_field, config.prompt_field, config.completion_field, "messages"}) {
  if (config.has_choices()) data_members_.insert(config.label_field);
  for (const auto& [text, key] : {std::pair(config.prompt_template, "data.prompt_template"),
                                  std::pair(config.completion_template, "data.completion_template")}) {
    const RecordTemplate parsed(text, key);
    for (const RecordTemplate::Part& part : parsed.parts())
      if (part.is_member) data_members_.insert({part.text, part.text.substr(0, part.text.find('.'))});
  }
}

LineKinds::Found LineKinds::look_at(std::string_view line) const {
  const std::optional<Json> object = object_of(line);
  if (!object) return {RequestKind::text};
  if (has(*object, "method") && has(*object, "url") && has(*object, "body")) return {RequestKind::openai};
  for (const char* name : {"custom_id", "prompt_token_ids", "prefix"})
    if (has(*object, name)) return {RequestKind::batch};
  Found found{RequestKind::records};
  for (const auto& [name, value] : object->members()) {
    if (!is_batch_name(name))
      found.other = name;
    else if (!data_members_.contains(name))
      found.option = name;
  }
  if (!found.option.empty()) found.kind = RequestKind::batch;
  return found;
}

RequestKind LineKinds::kind_of(std::string_view line) const {
  const Found found = look_at(line);
  if (found.option.empty() || found.other.empty()) return found.kind;
  throw UserError("",
                  fmt::format("this could be a batch line with the unknown name \"{}\", or a record of data with a "
                              "member \"{}\"",
                              found.other, found.option),
                  "say which with generate.kind = \"batch\" or \"records\"");
}

void LineKinds::require(RequestKind kind, std::string_view line, const std::string& first) const {
  const Found found = look_at(line);
  if (found.kind == kind) return;
  // {"prompt": ..} alone is a record; among batch lines it is one that leaves everything to the defaults.
  if (kind == RequestKind::batch && found.kind == RequestKind::records && found.other.empty()) return;
  // A broken object is told by whoever reads it.
  if (kind != RequestKind::text && found.kind == RequestKind::text && begins_object(line)) return;
  throw UserError("",
                  fmt::format("this line is of the kind \"{}\" ({}), and by {} the file is of the kind \"{}\" ({})",
                              name_of(found.kind), in_words(found.kind), first, name_of(kind), in_words(kind)),
                  "all lines are of one kind; generate.kind says which, where the first line does not");
}

}  // namespace tessera
