#pragma once
// Answers on their way into samples.jsonl: through the journal, or at once.

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/jobs.h"
#include "data/tokenizer.h"
#include "infer/journal/request_journal.h"
#include "infer/requests/request_file.h"
#include "infer/requests/result_lines.h"

namespace tessera {

class GenerateLines {
 public:
  /// @param eos        ids that end a text
  /// @param is_inline  the recipe itself holds the prompts: without a journal
  GenerateLines(const JobInputs&, std::filesystem::path run, const Tokenizer&, const RequestFile&,
                const std::vector<int32_t>& eos, bool is_inline);

  /// Reads what an earlier start of the same command has answered. @param model  as it answers
  /// @param adapters  that requests name -> hash of contents
  void begin(Model& model, std::map<std::string, std::string> adapters);
  /// Whether the request is answered, by an earlier start.
  bool has(size_t request) const;
  /// A request has ended.
  void add(size_t request, RequestResult&&);
  /// Keeps the lines that are whole since the last call; when it returns they survive a kill.
  void sync();
  /// Why requests failed, as far as the model's weights tell.
  void note_broken_weight(const std::string& weight) { broken_weight_ = weight; }
  /// All requests have ended: writes the file, and tells what came out. @return the exit code
  int end();

 private:
  RunIdentity identity(Model&, std::map<std::string, std::string> adapters) const;
  std::optional<ExpectedAnswer> expected(size_t line, const std::vector<RequestResult>&) const;
  void follow(const std::vector<std::pair<int64_t, std::string>>& lines);
  void write();
  /// What the written file says.
  struct Outcome {
    int64_t exact = 0, asked = 0, failed = 0;
    std::pair<int64_t, std::string> first{};  // of the failed ones: line and message
  };
  Outcome outcome() const;
  void tell(const Outcome&) const;
  void show_completions() const;
  int64_t too_long() const;

  const JobInputs& in_;
  std::filesystem::path run_;
  const Tokenizer& tokenizer_;
  const RequestFile& file_;
  const std::vector<int32_t>& eos_;
  bool is_inline_;
  std::vector<size_t> line_of_;  // of each request
  std::optional<ResultLines> text_;
  std::optional<RequestJournal> journal_;
  std::map<size_t, std::vector<RequestResult>> open_;   // lines some of whose requests have ended
  std::vector<size_t> left_;                            // of each line: requests that have not
  std::vector<std::pair<int64_t, std::string>> whole_;  // lines that no sync has taken
  int64_t waiting_bytes_ = 0;                           // of these
  std::map<int64_t, std::string> inline_;
  std::string broken_weight_;
};

}  // namespace tessera
