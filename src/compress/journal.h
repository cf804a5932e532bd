#pragma once
// compress/journal.jsonl: which stages are done, with what they read. One line a finished stage:
//
//   {"stage": "probe", "inputs": "<SHA-256>", "reads": {"train.seed": "1", "base": "9f31..", ..},
//    "file": "probe.json", "sha256": "<of the file>", "seconds": 1.2, "tokens": 8192}
//
// and of a stage that leaves further files "beside": {"deltas.json": "<SHA-256>", ..}, paths from the folder on;
//
// appended, and synced to the disk, after the stage's files were renamed into place. A stage is done when its line is
// whole and its files have the hashes. A kill leaves at most a torn last line, which is cut off. A line that is damaged
// otherwise counts as if it were not there, and stays where it is: its stage is run again, and goes on from what it has
// kept beside the journal.

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"

namespace tessera {

/// What a stage reads: keys of the recipe with their text, the base, the data and files with their hash; in order.
using StageReads = std::vector<std::pair<std::string, std::string>>;

/// SHA-256 of the lines "name=value".
std::string inputs_hash(const StageReads&);

/// As an object of texts, and back. @throws UserError where a value is no text
Json to_json(const StageReads&);
StageReads stage_reads_of(const Json&);

/// Null: it was not read.
const std::string* value_of(const StageReads&, std::string_view name);

/// In whatever order.
bool are_same_reads(const StageReads& before, const StageReads& now);

/// Files by the names of what is read of them, which a hash alone does not tell: of "fold.plan", say, "my.json".
using ReadFiles = std::map<std::string, std::string>;

/// A line for each value that was read otherwise, with both; empty: there is none. A key that stands for another one
/// where it is not set is told with that one.
std::string differences_in_words(const StageReads& before, const StageReads& now, const ReadFiles& files = {});

/// @param file  that tells what was read before
/// @throws UserError naming all that was read otherwise, with both values
void require_same_reads(const std::filesystem::path& file, std::string_view stage, const StageReads& before,
                        const StageReads& now, const ReadFiles& files = {});

struct JournalLine {
  std::string stage;
  StageReads reads;
  std::string file, sha256;
  double seconds = 0;
  int64_t tokens = 0;
  std::vector<std::pair<std::string, std::string>> beside{};  // further files, with their hashes
};

class Journal {
 public:
  /// Reads RUN/compress/journal.jsonl, where there is one.
  explicit Journal(std::filesystem::path folder);

  /// The last line of the stage, when its files are as they were; null: it is not done.
  const JournalLine* done(std::string_view stage) const;
  /// Whether the file of that stage is there and not as the last line of the stage left it.
  bool is_altered(std::string_view stage) const;
  const std::vector<JournalLine>& lines() const { return lines_; }
  /// Of each line that is damaged and does not count: file, line, what is wrong with it, and what comes of it.
  const std::vector<std::string>& notices() const { return notices_; }
  /// Whether any line has the file of that name with this hash: whether a stage of this run has written it.
  bool knows(std::string_view name, const std::string& sha256) const;
  std::filesystem::path file() const { return folder_ / "journal.jsonl"; }
  /// Cuts off a torn last line. Not done when a journal is only read: another process may be writing it.
  void mend();
  /// Behind `mend`. The line's file is in place.
  void append(const JournalLine&);

 private:
  std::filesystem::path folder_;
  std::vector<JournalLine> lines_;
  std::vector<std::string> notices_;
  int64_t whole_bytes_ = 0;  // of the file
};

}  // namespace tessera
