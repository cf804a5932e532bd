#include "data/prompts.h"

#include "core/error.h"
#include "data/data_record.h"
#include "io/files.h"

namespace tessera {
namespace {

/// The smaller of two bounds, of which 0 is none.
int64_t lesser_bound(int64_t a, int64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

}  // namespace

std::vector<TextExample> load_prompts(const std::filesystem::path& file, const DataConfig& config, int64_t limit) {
  const JsonlReader reader(config);
  const bool is_lines = is_jsonl(file);
  const std::string content = read_text_file(file);
  // Throws for records under a name that says text.
  if (!is_lines) look_at_text(file, content);
  const int64_t bound = lesser_bound(limit, config.max_documents);
  std::vector<TextExample> prompts;
  for_each_line(file, content, [&](std::string_view line, const std::string& where) {
    if (is_lines) {
      prompts.push_back(reader.read_prompt(line, where));
    } else {
      // Records are checked where they are read; here the line is the text itself.
      require_utf8(line, where);
      prompts.push_back({std::string(line), ""});
    }
    return static_cast<int64_t>(prompts.size()) != bound;
  });
  if (prompts.empty()) throw UserError(file.string(), "the file holds no prompts", "write one a line");
  return prompts;
}

}  // namespace tessera
