//   file -> lines (mapped, not copied) -> record -> prompt and completion, by fields, templates or label words
// Every fault names its file and line: in a file of millions of records nothing else would help.

#include "data/jsonl.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "data/data_record.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::string fill(const RecordTemplate& text, const DataRecord& record) {
  std::string out;
  for (const RecordTemplate::Part& part : text.parts()) out += part.is_member ? record.spelled(part.text) : part.text;
  return out;
}

std::optional<RecordTemplate> optional_template(const std::string& text, const std::string& key) {
  if (text.empty()) return std::nullopt;
  return RecordTemplate(text, key);
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

/// U+FEFF in front of a text, which some editors write, is no part of it.
std::string_view without_byte_order_mark(std::string_view text) {
  return text.substr(0, 3) == "\xEF\xBB\xBF" ? text.substr(3) : text;
}

void read_lines(const fs::path& file, std::string_view content, const DataConfig& config,
                const std::function<bool(TextExample)>& use) {
  const JsonlReader reader(config);
  int64_t documents = 0;
  for_each_line(file, content, [&](std::string_view line, const std::string& where) {
    // Counted before `use` is called, which may be the last.
    ++documents;
    return use(reader.read(line, where)) && documents != config.max_documents;
  });
  if (documents == 0) throw UserError(file.string(), "the file holds no records");
}

void read_text(const fs::path& file, std::string_view content, const std::function<bool(TextExample)>& use) {
  if (content.find_first_not_of(" \t\r\n") == std::string_view::npos)
    throw UserError(file.string(), "the file holds no text");
  if (const size_t fault = first_utf8_fault(content); fault != std::string_view::npos) {
    // The line with the fault, for the message.
    const size_t begin = content.substr(0, fault).rfind('\n') + 1;  // npos + 1 == 0
    const auto line = std::count(content.begin(), content.begin() + static_cast<ptrdiff_t>(begin), '\n') + 1;
    require_utf8(content.substr(begin), fmt::format("{}:{}", file.string(), line));
  }
  use({"", std::string(content)});
}

/// A key that is set to "" names a field that no record has.
bool holds(const DataRecord& record, const std::string& field) { return !field.empty() && record.find(field); }

bool is_object(std::string_view line) {
  try {
    return Json::parse(line, "").is_object();
  } catch (const UserError&) {
    return false;
  }
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
      // The next brace of either kind has to be the closing one: placeholders do not nest.
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

JsonlReader::JsonlReader(const DataConfig& config)
    : text_field_(config.text_field),
      prompt_field_(config.prompt_field),
      completion_field_(config.completion_field),
      label_field_(config.label_field),
      label_words_(config.label_words),
      prompt_(optional_template(config.prompt_template, "data.prompt_template")),
      completion_(optional_template(config.completion_template, "data.completion_template")) {
  for (size_t choice = 0; choice < label_words_.size(); ++choice) labels_.push_back(config.label(choice));
}

TextExample JsonlReader::with_label_word(std::string prompt, const DataRecord& record) const {
  // As the line spells it: a label 1 and a label "1" are the same word, 1.0 is another.
  const std::string label = record.spelled(label_field_);
  const auto found = std::find(labels_.begin(), labels_.end(), label);
  if (found == labels_.end()) {
    std::string known;
    for (const std::string& each : labels_) known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", each);
    throw UserError(record.where(), fmt::format("the label \"{}\" is none of: {}", label, known),
                    fmt::format("data.labels lists what the member \"{}\" may say, in the order of data.label_words",
                                label_field_));
  }
  const auto choice = static_cast<size_t>(found - labels_.begin());
  return {std::move(prompt), label_words_[choice], static_cast<int32_t>(choice)};
}

TextExample JsonlReader::read(std::string_view line, const std::string& where) const {
  const DataRecord record(line, where);
  if (!label_words_.empty())
    return with_label_word(prompt_ ? fill(*prompt_, record) : record.text(prompt_field_), record);
  if (prompt_ || completion_) {
    // A completion template alone makes whole documents, unless the record has a prompt.
    const bool has_prompt = prompt_ || record.find(prompt_field_);
    return {prompt_      ? fill(*prompt_, record)
            : has_prompt ? record.text(prompt_field_)
                         : "",
            completion_ ? fill(*completion_, record) : record.text(completion_field_)};
  }
  // Each record says by its members what it is, so that a file may hold both kinds. One that is both is for the user to
  // decide.
  const bool is_text = holds(record, text_field_), is_pair = holds(record, completion_field_);
  if (is_text && is_pair)
    throw UserError(where, fmt::format("the record has both \"{}\" and \"{}\"", text_field_, completion_field_),
                    "set data.text_field or data.completion_field to \"\" to say which one to leave out");
  if (is_text) return {"", record.text(text_field_)};
  if (is_pair) return {record.text(prompt_field_), record.text(completion_field_)};
  throw UserError(where, fmt::format("the record has neither \"{}\" nor \"{}\"", text_field_, completion_field_),
                  record.members_hint() +
                      "\nname yours with data.text_field, or data.prompt_field and "
                      "data.completion_field, or use templates");
}

TextExample JsonlReader::read_prompt(std::string_view line, const std::string& where) const {
  const DataRecord record(line, where);
  const bool has_text = holds(record, text_field_), has_prompt = holds(record, prompt_field_);
  if (!prompt_ && !has_prompt && has_text) return {record.text(text_field_), ""};
  if (!prompt_ && !has_prompt && !has_text)
    throw UserError(where, fmt::format("the record has neither \"{}\" nor \"{}\"", prompt_field_, text_field_),
                    record.members_hint() + "\nname yours with data.prompt_field, or use data.prompt_template");
  return {prompt_ ? fill(*prompt_, record) : record.text(prompt_field_), expected_completion(record)};
}

std::string JsonlReader::expected_completion(const DataRecord& record) const {
  if (!label_words_.empty()) return record.find(label_field_) ? with_label_word("", record).completion : "";
  if (!completion_) return holds(record, completion_field_) ? record.text(completion_field_) : "";
  const auto& parts = completion_->parts();
  // A completion is optional here: its template is filled only when the record has all that it asks for.
  const bool is_whole = std::all_of(parts.begin(), parts.end(), [&](const RecordTemplate::Part& part) {
    return !part.is_member || record.find(part.text);
  });
  return is_whole ? fill(*completion_, record) : "";
}

bool is_jsonl(const fs::path& file) {
  // By the name alone: what is in a file is looked at only where its name says text (look_at_text).
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (extension == ".jsonl" || extension == ".jsonlines" || extension == ".ndjson") return true;
  // Files that would be read as one long text of no use to anybody.
  for (const char* other : {".json", ".gz", ".zst", ".xz", ".bz2", ".zip", ".parquet", ".arrow", ".csv", ".tsv", ".h5"})
    if (extension == other)
      throw UserError(file.string(), fmt::format("{} files are not read", extension),
                      "give a .jsonl file (one JSON object a line) or a text file");
  return false;
}

void for_each_line(const fs::path& file, std::string_view content,
                   const std::function<bool(std::string_view, const std::string&)>& use) {
  content = without_byte_order_mark(content);
  for (int64_t number = 1; !content.empty(); ++number) {
    const size_t end = std::min(content.find('\n'), content.size());
    std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    if (is_blank(line)) continue;
    // The break of files from Windows.
    if (line.back() == '\r') line.remove_suffix(1);
    if (!use(line, fmt::format("{}:{}", file.string(), number))) return;
  }
}

std::string look_at_text(const fs::path& file, std::string_view content) {
  content = without_byte_order_mark(content);
  // Cheap: nearly all texts are told from JSON by their first two characters.
  const size_t brace = content.find_first_not_of(" \t\r\n"), after = content.find_first_not_of(" \t\r\n", brace + 1);
  if (brace == std::string_view::npos || content[brace] != '{' || after == std::string_view::npos ||
      (content[after] != '"' && content[after] != '}'))
    return "";
  bool are_objects = true;
  int lines = 0;
  // Two lines are parsed at most: one object may begin a text, two in a row are records.
  for_each_line(file, content, [&](std::string_view line, const std::string&) {
    are_objects = are_objects && is_object(line);
    return are_objects && ++lines < 2;
  });
  if (are_objects)
    throw UserError(file.string(), "holds JSON lines, and its name says that it is plain text",
                    "give it a name that ends in .jsonl, or make a link of such a name\n"
                    "what is to be trained on as it stands belongs into a record: {\"text\": \"...\"}");
  return fmt::format(
      "note: {} begins with a JSON object and is read as plain text, since its name does not end in .jsonl",
      file.string());
}

void for_each_document(const fs::path& file, std::string_view content, const DataConfig& config,
                       const std::function<bool(TextExample)>& use) {
  if (is_jsonl(file))
    read_lines(file, content, config, use);
  else
    read_text(file, without_byte_order_mark(content), use);
}

}  // namespace tessera
