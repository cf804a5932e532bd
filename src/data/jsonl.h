#pragma once
// Documents of a source as text: the records of a JSONL file, or a whole text file.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/data_config.h"

namespace tessera {

class DataRecord;

/// A document before it becomes tokens. The prompt is read, the completion is scored;
/// a text document has an empty prompt.
struct TextExample {
  std::string prompt, completion;
  int32_t choice = -1;  // number of the label word that the completion is; -1 without data.label_words
};

/// Text with {member} placeholders, nested members by dots ("{instances.0.input}"). "{{" and "}}" are braces.
class RecordTemplate {
 public:
  /// @param key  the recipe's key, for errors: "data.prompt_template"
  /// @throws UserError naming the key: a brace without its partner, an empty placeholder
  RecordTemplate(std::string_view text, const std::string& key);
  struct Part {
    std::string text;
    bool is_member;
  };
  const std::vector<Part>& parts() const { return parts_; }

 private:
  std::vector<Part> parts_;
};

/// Turns one line of a JSONL file into a document as [data] says:
///   a template is given   prompt and completion come from the templates; a part without template is its plain field
///   label words are given the prompt as above; the completion is the word of the label that `label_field` says
///   otherwise             the member `text_field`, or the members `prompt_field` and `completion_field`
class JsonlReader {
 public:
  /// @throws UserError naming the key of a malformed template
  explicit JsonlReader(const DataConfig&);
  /// @param where  "file:line", for errors
  /// @throws UserError: not UTF-8, no JSON object, a member missing or of the wrong kind, a label without a word
  TextExample read(std::string_view line, const std::string& where) const;

  /// The same for a line that is to be continued: its prompt, or its text where it has no prompt. It needs no
  /// completion; one that it has is what a right answer would be.
  TextExample read_prompt(std::string_view line, const std::string& where) const;

 private:
  TextExample with_label_word(std::string prompt, const DataRecord& record) const;
  std::string expected_completion(const DataRecord& record) const;

  std::string text_field_, prompt_field_, completion_field_, label_field_;
  std::vector<std::string> labels_, label_words_;
  std::optional<RecordTemplate> prompt_, completion_;
};

/// Whether the file's name says JSONL (.jsonl, .jsonlines, .ndjson); all other files are text: one document a file.
/// @throws UserError for names that are neither (.json, .gz, .parquet, ...)
bool is_jsonl(const std::filesystem::path&);

/// Calls `use` with each line and its place ("file:line") in order until it returns false. Lines end with "\n" or
/// "\r\n", which do not belong to them; blank ones are skipped. A byte order mark is dropped.
void for_each_line(const std::filesystem::path& file, std::string_view content,
                   const std::function<bool(std::string_view line, const std::string& where)>& use);

/// Looks at a text file that could have been meant otherwise.
/// @return  a notice when the text begins with a JSON object; empty otherwise
/// @throws UserError when it is JSON lines under another name: its first two lines, or its only one, are JSON objects
std::string look_at_text(const std::filesystem::path&, std::string_view content);

/// Calls `use` with each document of a file in order until it returns false, at most config.max_documents times (0:
/// no bound).
/// @param content  the file's bytes. JSONL: lines end with "\n" or "\r\n", blank lines are skipped.
///   A byte order mark is dropped.
/// @throws UserError naming file and line; also when the file holds no document
void for_each_document(const std::filesystem::path& file, std::string_view content, const DataConfig& config,
                       const std::function<bool(TextExample)>& use);

}  // namespace tessera
