#pragma once
// Answers on their way into samples.jsonl: through the journal, or at once. Each rank keeps a journal of its own
// answers, and rank 0 writes the file.

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/jobs.h"
#include "data/tokenizer.h"
#include "infer/journal/request_journal.h"
#include "infer/rank_reports.h"
#include "infer/requests/request_file.h"
#include "infer/requests/result_lines.h"

namespace tessera {

class GenerateLines {
 public:
  /// @param eos        ids that end a text
  /// @param is_inline  the recipe itself holds the prompts: without a journal
  GenerateLines(const JobInputs&, std::filesystem::path run, const Tokenizer&, const RequestFile&,
                const std::vector<int32_t>& eos, bool is_inline);

  /// Reads what earlier starts of the same command have answered. A collective. @param model  as it answers
  /// @param adapters  that requests name -> hash of contents
  /// @throws UserError on all ranks when one does not see the folder that rank 0 writes into
  void begin(Model& model, const std::map<std::string, std::string>& adapters);
  /// How many lines are answered by then, for --check: nothing is written. @param model  laid out, without values
  /// @throws UserError as begin, as far as that model tells
  int64_t look(Model& model, const std::map<std::string, std::string>& adapters);
  /// Requests that earlier starts have not answered, ascending; the same on every rank.
  std::vector<size_t> left() const;
  /// Lines that earlier starts have answered.
  int64_t resumed() const { return std::count(is_answered_.begin(), is_answered_.end(), true); }
  /// A request of this rank's has ended.
  void add(size_t request, RequestResult&&);
  /// Keeps the lines that are whole since the last call; when it returns they survive a kill.
  void sync();
  /// On another rank: lines that rank 0 has to be told, of which it keeps files.
  NumberedLines take_news() { return std::exchange(news_, {}); }
  /// On rank 0: such lines.
  void keep(const NumberedLines&);
  /// On rank 0, when all ranks have left their work: "37 of 120 requests are answered", or nothing where none is kept.
  std::string state() const;
  /// Why requests failed, as far as the model's weights tell.
  void note_broken_weight(const std::string& weight) { broken_weight_ = weight; }
  /// All requests of all ranks have ended: rank 0 writes the file, and tells what came out. @return the exit code
  int end();

 private:
  RunIdentity identity(Model&, const std::map<std::string, std::string>& adapters, const RunIdentity& unknown) const;
  std::string difference(int64_t number, const std::string& answer) const;
  RequestJournal read_journal() const;
  JournalHead agreed_head(Model&, const std::map<std::string, std::string>& adapters) const;
  std::string open_first();
  void open_journal();
  std::optional<ExpectedAnswer> expected(size_t line, const std::vector<RequestResult>&) const;
  bool is_first() const { return in_.world.rank() == 0; }
  bool follows() const;
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
  JournalHead head_;
  std::vector<bool> is_answered_;  // of each line, by earlier starts
  std::optional<ResultLines> text_;
  std::optional<RequestJournal> journal_;
  std::map<size_t, std::vector<RequestResult>> open_;  // lines some of whose requests have ended
  std::vector<size_t> left_;                           // of each line: requests that have not
  NumberedLines whole_;                                // lines that no sync has taken
  int64_t waiting_bytes_ = 0;                          // of these
  NumberedLines news_;
  std::map<int64_t, std::string> inline_;
  std::string broken_weight_;
};

}  // namespace tessera
