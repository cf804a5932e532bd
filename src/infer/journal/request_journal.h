#pragma once
// Which requests are answered, and with what, so that a batch that was killed goes on and ends with the same bytes.
//
//   RUN/journal/<rank>.log   {"format": "tessera-journal", "version": 1, "identity": .., .., "made_on": {..}}
//                            1c291ca3 17 {"custom_id": .., "outputs": [..], ..}
//                            ^ CRC-32 (IEEE) of "17 {..}"; 17 is the number of the answer in samples.jsonl, from 0
//   when all is done         every file but 0.log goes, and 0.log is its first line and {"end": "<SHA-256>"} of
//                            samples.jsonl
//
// Lines are synced before they count. A kill leaves at most a last line without its end, which is cut off. Anything
// else that is not as it was written is an error: bytes that were synced do not change by themselves.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "infer/journal/run_identity.h"
#include "io/file_descriptor.h"

namespace tessera {

/// What the first line of each journal keeps.
struct JournalHead {
  RunIdentity identity{};
  std::map<std::string, std::string> made_on{};  // "backend", "vector", "version": answers may differ in bits elsewhere
};

/// An answer with its number.
using NumberedLine = std::pair<int64_t, std::string>;

class RequestJournal {
 public:
  /// Reads what all ranks of earlier starts have left; nothing is written. When ranks share a folder, all of them are
  /// behind this before any calls `begin`.
  /// @param run_folder  in which "journal" and the samples are
  /// @param samples     the name of the file of answers: "samples.jsonl"
  /// @throws UserError naming file and line of what is damaged; the parts in which another identity differs; a file of
  ///   answers that was changed since
  RequestJournal(std::filesystem::path run_folder, const std::string& samples, JournalHead head);

  /// Whether the file of answers is there and as it was made: nothing is left to do.
  bool is_complete() const { return is_complete_; }
  bool is_finished(int64_t number) const { return places_.contains(number); }
  int64_t finished() const { return static_cast<int64_t>(places_.size()); }
  /// An answer of the journal, read from its file. @throws UserError when it is not what it was
  std::string line(int64_t number) const;
  /// All answers, in the order in which the files have them.
  void for_each_line(const std::function<void(int64_t number, const std::string& line)>&) const;
  /// What is to be told: a torn line, another kind of machine.
  const std::vector<std::string>& notices() const { return notices_; }

  /// Opens this rank's file, new or cut behind its last whole line.
  void begin(int rank);
  /// Writes answers behind `begin` and syncs them, once for all of them: when it returns they count.
  void append(const std::vector<NumberedLine>&);
  /// By one rank, when every rank has appended its last: writes the file of answers in order, then ends the journal.
  /// @throws UserError when answers are missing
  void finish();

 private:
  struct Place {
    size_t file = 0;
    int64_t order = 0, begin = 0, bytes = 0;  // of the answer alone
    uint32_t crc = 0;
  };
  struct LogFile {
    std::filesystem::path path;
    int64_t whole_bytes = 0;  // up to the last whole line
    bool has_end = false;
  };
  void read_all();
  void read_file(size_t file);

  std::filesystem::path folder_, samples_;
  JournalHead head_;
  std::vector<LogFile> files_{};
  std::map<int64_t, Place> places_{};
  std::vector<std::string> notices_{};
  std::optional<FileDescriptor> own_{};
  size_t own_file_ = 0;
  bool is_complete_ = false;
};

}  // namespace tessera
