//   name -> text -> kind by its first line -> each line, its faults collected -> all requests, or the faults together

#include "infer/requests/request_file.h"

#include "core/error.h"
#include "data/data_record.h"
#include "infer/requests/batch_lines.h"
#include "infer/requests/line_faults.h"
#include "infer/requests/line_kinds.h"
#include "infer/requests/openai_lines.h"
#include "infer/requests/request_builder.h"
#include "io/files.h"
#include "io/json_file.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kKinds[] = {"text", "records", "batch", "openai"};

/// Reads lines one by one into a RequestFile.
class LineReader {
 public:
  LineReader(const DataConfig& config, const Tokenizer& tokenizer, const RequestDefaults& defaults, RequestFile& file)
      : file_(file), records_(config), builder_(config, tokenizer, defaults, file) {}

  /// @throws UserError, in part without a place
  void read(std::string_view line, const std::string& where) {
    require_utf8(line, where);
    switch (file_.kind) {
      case RequestKind::text:
        return add({std::string(line), ""}, where);
      case RequestKind::records:
        return add(records_.read_prompt(line, where), where);
      case RequestKind::batch:
        return add_batch_line(object_of(line, where), where, builder_);
      case RequestKind::openai:
        return add_openai_line(object_of(line, where), where, builder_);
    }
  }

  /// A text or a record has the options of the recipe.
  void add(TextExample example, const std::string& where) {
    LineOptions options = read_options({}, {}, builder_.defaults(), builder_.tokenizer(), builder_.told_names());
    std::vector<int32_t> prompt = builder_.tokens_of(example.prompt);
    builder_.add(std::move(options), std::move(prompt), {.where = where, .example = std::move(example)});
  }

  const std::set<std::string>& told_names() { return builder_.told_names(); }

 private:
  static Json object_of(std::string_view line, const std::string& where) {
    Json json = parse_configuration(line, where);
    if (!json.is_object()) throw UserError(where, "a request is a JSON object {...}");
    return json;
  }

  RequestFile& file_;
  JsonlReader records_;
  RequestBuilder builder_;
};

struct PlacedLine {
  std::string_view text;
  std::string where;  // "FILE:LINE"
};

/// The first line that is not blank; empty: there is none.
PlacedLine first_line(const fs::path& file, std::string_view content) {
  PlacedLine first;
  for_each_line(file, content, [&](std::string_view line, const std::string& where) {
    first = {line, where};
    return false;
  });
  return first;
}

RequestKind named_kind(std::string_view name) {
  for (size_t kind = 0; kind < std::size(kKinds); ++kind)
    if (kKinds[kind] == name) return static_cast<RequestKind>(kind);
  throw UserError("generate.kind", fmt::format("generate.kind is \"{}\"", name),
                  "known kinds: auto, text, records, batch, openai");
}

/// What the first line says. One that begins an object, in a file whose name says JSON lines, is a broken one: it is
/// not taken for text.
RequestKind found_kind(const LineKinds& kinds, std::string_view line, const std::string& where, bool is_named_jsonl) {
  const RequestKind kind = with_place(where, [&] { return kinds.kind_of(line); });
  if (kind == RequestKind::text && is_named_jsonl && line.find_first_not_of(" \t") == line.find('{'))
    Json::parse(line, where);  // throws, and tells where it breaks
  return kind;
}

/// The smaller of two bounds, of which 0 is none.
int64_t lesser_bound(int64_t a, int64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

int64_t bound_of(RequestKind kind, int64_t limit, const DataConfig& config) {
  const bool is_data = kind == RequestKind::text || kind == RequestKind::records;
  return is_data ? lesser_bound(limit, config.max_documents) : limit;
}

/// The contexts of one line may be more than are wanted.
void cut(RequestFile& file, int64_t bound) {
  if (bound == 0 || std::ssize(file.lines) <= bound) return;
  file.lines.resize(static_cast<size_t>(bound));
  file.requests.resize(file.lines.back().first + file.lines.back().count);
}

}  // namespace

std::string_view name_of(RequestKind kind) { return kKinds[static_cast<int>(kind)]; }

RequestFile read_requests_text(std::string_view text, const fs::path& path, std::string_view kind,
                               const DataConfig& config, const Tokenizer& tokenizer, const RequestDefaults& defaults,
                               int64_t limit) {
  const bool is_named_jsonl = is_jsonl(path);  // throws for names of formats that are not read
  const PlacedLine first = first_line(path, text);
  if (first.text.empty()) throw UserError(path.string(), "the file holds no requests", "write one a line");
  if (is_named_jsonl && first.text.starts_with("[{"))
    throw UserError(path.string(), "the file begins with a JSON array of objects",
                    "write one object a line, without the brackets");
  const LineKinds kinds(config);
  const bool is_found = kind == "auto";
  RequestFile file{.kind = is_found ? found_kind(kinds, first.text, first.where, is_named_jsonl) : named_kind(kind)};
  const int64_t bound = bound_of(file.kind, limit, config);
  LineReader reader(config, tokenizer, defaults, file);
  LineFaults faults;
  for_each_line(path, text, [&](std::string_view line, const std::string& where) {
    faults.collect(where, [&] {
      if (is_found) kinds.require(file.kind, line, first.where);
      reader.read(line, where);
    });
    return bound == 0 || std::ssize(file.lines) + faults.count() < bound;
  });
  faults.require_none();
  cut(file, bound);
  for (const std::string& name : reader.told_names())
    file.notices.push_back(fmt::format("note: {}: \"{}\" {}", path.string(), name, translation_of(name)));
  return file;
}

RequestFile read_requests(const fs::path& path, std::string_view kind, const DataConfig& config,
                          const Tokenizer& tokenizer, const RequestDefaults& defaults, int64_t limit) {
  is_jsonl(path);  // throws for names of formats that are not read, before a large file is
  return read_requests_text(read_text_file(path), path, kind, config, tokenizer, defaults, limit);
}

RequestFile requests_of(const std::vector<TextExample>& examples, const std::string& place, const DataConfig& config,
                        const Tokenizer& tokenizer, const RequestDefaults& defaults) {
  RequestFile file{.kind = RequestKind::text};
  LineReader reader(config, tokenizer, defaults, file);
  LineFaults faults;
  for (const TextExample& example : examples) {
    const std::string where = fmt::format("{}: prompt {}", place, &example - examples.data() + 1);
    faults.collect(where, [&] { reader.add(example, where); });
  }
  faults.require_none();
  return file;
}

}  // namespace tessera
