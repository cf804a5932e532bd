#include "data/jsonl.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/json.h"
#include "data/tokenizer/unicode.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// The first byte that belongs to no UTF-8 character; npos when all do.
size_t first_fault(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const tokenizer::CodePoint point = tokenizer::first_code_point(text.substr(at));
    if (point.value < 0) return at;
    at += static_cast<size_t>(point.length);
  }
  return std::string_view::npos;
}

void require_utf8(std::string_view text, const std::string& where) {
  if (const size_t fault = first_fault(text); fault != std::string_view::npos)
    throw UserError(where,
                    fmt::format("byte {} is not UTF-8 (0x{:02x})", fault + 1, static_cast<unsigned char>(text[fault])),
                    "convert the file to UTF-8");
}

/// An item of an array by its number, a member of an object by its name; nullptr when there is none.
const Json* child(const Json& parent, std::string_view name) {
  if (!parent.is_array()) return parent.find(name);
  size_t index = 0;
  const auto [end, fault] = std::from_chars(name.data(), name.data() + name.size(), index);
  const bool is_index = fault == std::errc() && end == name.data() + name.size() && index < parent.items().size();
  return is_index && !parent.items()[index].is_null() ? &parent.items()[index] : nullptr;
}

/// A member by its name, else by its path "a.0.b".
const Json* find_member(const Json& record, std::string_view path) {
  if (const Json* whole = record.find(path)) return whole;
  const Json* node = &record;
  while (node) {
    const size_t dot = path.find('.');
    node = child(*node, path.substr(0, dot));
    if (dot == std::string_view::npos) return node;
    path.remove_prefix(dot + 1);
  }
  return nullptr;
}

std::vector<std::string> member_names(const Json& record) {
  std::vector<std::string> names;
  for (const auto& [name, value] : record.members()) names.push_back(name);
  return names;
}

[[noreturn]] void fail_missing(const Json& record, const std::string& name, const std::string& where) {
  const std::vector<std::string> names = member_names(record);
  std::string hint = "members here: ";
  for (size_t i = 0; i < names.size(); ++i) hint += (i ? ", " : "") + names[i];
  if (const std::string near = nearest_name(name, names); !near.empty() && near != name)
    hint += fmt::format("\ndid you mean \"{}\"?", near);
  throw UserError(where, fmt::format("the member \"{}\" is missing or null", name), hint);
}

std::string text_member(const Json& record, const std::string& name, const std::string& where) {
  const Json* value = find_member(record, name);
  if (!value) fail_missing(record, name, where);
  if (!value->is_string())
    throw UserError(where, fmt::format("the member \"{}\" is no text: {:.40}", name, value->dump()),
                    "a template turns numbers into text: data.completion_template = \"{" + name + "}\"");
  return value->as_string();
}

/// A member as a template takes it: text as it is, numbers and truth values as JSON spells them.
std::string member_text(const Json& record, const std::string& name, const std::string& where) {
  const Json* value = find_member(record, name);
  if (!value) fail_missing(record, name, where);
  if (value->is_array() || value->is_object())
    throw UserError(
        where, fmt::format("the member \"{}\" is a list or an object, a template takes text and numbers", name),
        fmt::format("name what is inside it, for example {{{}.{}}}", name, value->is_array() ? "0" : "name"));
  return value->is_string() ? value->as_string() : value->dump();
}

std::string fill(const RecordTemplate& text, const Json& record, const std::string& where) {
  std::string out;
  for (const RecordTemplate::Part& part : text.parts()) {
    out += part.is_member ? member_text(record, part.text, where) : part.text;
  }
  return out;
}

std::optional<RecordTemplate> optional_template(const std::string& text, const std::string& key) {
  if (text.empty()) return std::nullopt;
  return RecordTemplate(text, key);
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

std::string_view without_byte_order_mark(std::string_view text) {
  return text.substr(0, 3) == "\xEF\xBB\xBF" ? text.substr(3) : text;
}

void read_lines(const fs::path& file, std::string_view content, const DataConfig& config,
                const std::function<bool(TextExample)>& use) {
  const RecordReader reader(config);
  int64_t documents = 0;
  for (int64_t line_number = 1; !content.empty(); ++line_number) {
    const size_t end = std::min(content.find('\n'), content.size());
    std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    if (is_blank(line)) continue;
    if (line.back() == '\r') line.remove_suffix(1);
    ++documents;
    if (!use(reader.read(line, fmt::format("{}:{}", file.string(), line_number))) || documents == config.max_documents)
      return;
  }
  if (documents == 0) throw UserError(file.string(), "the file holds no records");
}

void read_text(const fs::path& file, std::string_view content, const std::function<bool(TextExample)>& use) {
  if (content.find_first_not_of(" \t\r\n") == std::string_view::npos)
    throw UserError(file.string(), "the file holds no text");
  if (const size_t fault = first_fault(content); fault != std::string_view::npos) {
    const size_t begin = content.substr(0, fault).rfind('\n') + 1;  // npos + 1 == 0
    const auto line = std::count(content.begin(), content.begin() + static_cast<ptrdiff_t>(begin), '\n') + 1;
    require_utf8(content.substr(begin), fmt::format("{}:{}", file.string(), line));
  }
  use({"", std::string(content)});
}

}  // namespace

RecordTemplate::RecordTemplate(std::string_view text, const std::string& key) {
  const auto fail = [&](const std::string& what) {
    throw UserError(key, what, "placeholders are {member}; write {{ and }} for braces that stay");
  };
  std::string literal;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c != '{' && c != '}') {
      literal += c;
    } else if (at + 1 < text.size() && text[at + 1] == c) {
      literal += text[at++];
    } else if (c == '}') {
      fail(fmt::format("\"}}\" at byte {} closes nothing", at + 1));
    } else {
      const size_t close = text.find_first_of("{}", at + 1);
      if (close == std::string_view::npos || text[close] == '{')
        fail(fmt::format("\"{{\" at byte {} is not closed", at + 1));
      if (close == at + 1) fail(fmt::format("the placeholder at byte {} names no member", at + 1));
      if (!literal.empty()) parts_.push_back({std::exchange(literal, {}), false});
      parts_.push_back({std::string(text.substr(at + 1, close - at - 1)), true});
      at = close;
    }
  }
  if (!literal.empty()) parts_.push_back({std::move(literal), false});
}

RecordReader::RecordReader(const DataConfig& config)
    : text_field_(config.text_field),
      prompt_field_(config.prompt_field),
      completion_field_(config.completion_field),
      label_field_(config.label_field),
      label_words_(config.label_words),
      prompt_(optional_template(config.prompt_template, "data.prompt_template")),
      completion_(optional_template(config.completion_template, "data.completion_template")) {
  for (size_t choice = 0; choice < label_words_.size(); ++choice) labels_.push_back(config.label(choice));
}

TextExample RecordReader::with_label_word(std::string prompt, const Json& record, const std::string& where) const {
  const std::string label = member_text(record, label_field_, where);
  const auto found = std::find(labels_.begin(), labels_.end(), label);
  if (found == labels_.end()) {
    std::string known;
    for (const std::string& each : labels_) known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", each);
    throw UserError(where, fmt::format("the label \"{}\" is none of: {}", label, known),
                    fmt::format("data.labels lists what the member \"{}\" may say, in the order of data.label_words",
                                label_field_));
  }
  const auto choice = static_cast<size_t>(found - labels_.begin());
  return {std::move(prompt), label_words_[choice], static_cast<int32_t>(choice)};
}

TextExample RecordReader::read(std::string_view line, const std::string& where) const {
  require_utf8(line, where);
  const Json record = Json::parse(line, where);
  if (!record.is_object())
    throw UserError(where, fmt::format("a record is a JSON object {{...}}, found {:.40}", record.dump()));
  if (!label_words_.empty())
    return with_label_word(prompt_ ? fill(*prompt_, record, where) : text_member(record, prompt_field_, where), record,
                           where);
  if (prompt_ || completion_) {
    // A completion template alone makes whole documents, unless the record has a prompt.
    const bool has_prompt = prompt_ || find_member(record, prompt_field_);
    return {prompt_      ? fill(*prompt_, record, where)
            : has_prompt ? text_member(record, prompt_field_, where)
                         : "",
            completion_ ? fill(*completion_, record, where) : text_member(record, completion_field_, where)};
  }
  const bool is_text = !text_field_.empty() && find_member(record, text_field_);
  const bool is_pair = !completion_field_.empty() && find_member(record, completion_field_);
  if (is_text && is_pair)
    throw UserError(where, fmt::format("the record has both \"{}\" and \"{}\"", text_field_, completion_field_),
                    "set data.text_field or data.completion_field to \"\" to say which one to leave out");
  if (is_text) return {"", text_member(record, text_field_, where)};
  if (is_pair) return {text_member(record, prompt_field_, where), text_member(record, completion_field_, where)};
  std::string hint = "members here: ";
  const std::vector<std::string> names = member_names(record);
  for (size_t i = 0; i < names.size(); ++i) hint += (i ? ", " : "") + names[i];
  throw UserError(
      where, fmt::format("the record has neither \"{}\" nor \"{}\"", text_field_, completion_field_),
      hint + "\nname yours with data.text_field, or data.prompt_field and data.completion_field, or use templates");
}

bool is_jsonl(const fs::path& file) {
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (extension == ".jsonl" || extension == ".ndjson") return true;
  for (const char* other : {".json", ".gz", ".zst", ".xz", ".bz2", ".zip", ".parquet", ".arrow", ".csv", ".tsv", ".h5"})
    if (extension == other)
      throw UserError(file.string(), fmt::format("{} files are not read", extension),
                      "give a .jsonl file (one JSON object a line) or a text file");
  return false;
}

void for_each_document(const fs::path& file, std::string_view content, const DataConfig& config,
                       const std::function<bool(TextExample)>& use) {
  content = without_byte_order_mark(content);
  if (is_jsonl(file))
    read_lines(file, content, config, use);
  else
    read_text(file, content, use);
}

}  // namespace tessera
