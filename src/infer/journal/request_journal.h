#pragma once
// Which requests are answered, and with what, so that a batch that was killed goes on and ends with the same bytes.
//
//   RUN/journal/<rank>.log   {"format":"tessera-journal","version":1,"identity":.., ..,"made_on":{..}}
//                            1c291ca3 17 {"custom_id":..,"outputs":[..], ..}
//                            ^ CRC-32 of "17 {..}"; 17 is the number of the line in samples.jsonl, from 0
//   when all is done         0.log alone is left: its first line and {"end":"<SHA-256 of samples.jsonl>"}
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

#include "infer/journal/journal_lines.h"
#include "io/file_descriptor.h"

namespace tessera {

/// What tells how an answer of a journal is not one to the request of its number; empty where that cannot be said.
using AnswerDifference = std::function<std::string(int64_t number, const std::string& answer)>;

class RequestJournal {
 public:
  /// On rank 0: reads what all ranks of earlier starts have left; nothing is written.
  /// @param run_folder  in which "journal" and the file of answers are
  /// @param samples     the name of the file of answers: "samples.jsonl"
  /// Answers of another identity, or for a file of another name, make place when they are whole and their file is as it
  /// was made.
  /// @throws UserError naming file and line of what is damaged; naming the parts in which the identity of answers that
  ///   are not whole is another; for a file of answers that was changed after it was made
  /// @param differs  asked about answers to other requests, until it says something: a part of the error
  RequestJournal(const std::filesystem::path& run_folder, const std::string& samples, JournalHead head,
                 AnswerDifference differs = {});
  /// What rank 0's file says that its answers are of; nothing where there is none.
  static std::optional<JournalHead> head_of(const std::filesystem::path& run_folder);
  /// On another rank, when rank 0 has read all files and has begun its own: reads the one that this rank appends to.
  /// @throws UserError as above for that file
  static RequestJournal of_rank(int rank, const std::filesystem::path& run_folder, const std::string& samples,
                                JournalHead head);

  /// What tells rank 0's file from every other one, on all machines that see it; empty where it cannot be seen.
  static std::string mark(const std::filesystem::path& run_folder);

  /// Whether the file of answers is there, whole and as it was made: nothing is left to do.
  bool is_complete() const { return is_complete_; }
  /// Whether the answer of that number is in the journal, by what was read at start and what this rank has appended.
  bool is_finished(int64_t number) const { return places_.contains(number); }
  int64_t finished() const { return static_cast<int64_t>(places_.size()); }
  /// Calls `use` with each answer of the journal, in the order in which its files have them.
  void for_each_answer(const std::function<void(int64_t number, const std::string& answer)>& use) const;
  /// What is to be told: a line that was torn, another kind of machine.
  const std::vector<std::string>& notices() const { return notices_; }

  /// Makes this rank's file, or cuts it behind its last whole line, to append to it. Rank 0 is the first.
  void begin(int rank);
  /// Behind `begin`: writes answers with their numbers and syncs them, once for all. When it returns they count.
  void append(const std::vector<std::pair<int64_t, std::string>>& answers);
  /// By rank 0, behind `begin`, when every rank has appended its last answer: writes the file of answers in order, then
  /// ends the journal.
  void finish();

 private:
  enum class Reads : uint8_t { all, own };
  RequestJournal(Reads, const std::filesystem::path& run_folder, const std::string& samples, JournalHead head,
                 AnswerDifference differs);

  struct LogFile {
    std::filesystem::path path;
    std::string head{};       // its first line
    std::string answers{};    // the file that it says they come into
    int64_t whole_bytes = 0;  // of its head and its answers
    bool is_other = false;    // of another identity, or for a file of another name
  };
  struct Place {
    size_t file;
    int64_t begin, bytes;  // of the answer
  };
  std::filesystem::path file_of(int rank) const;
  void read_all();
  void read_file(LogFile);
  void read_head(const LogFile&, std::string_view line);
  void read_answer(std::string_view line, int64_t begin);
  void look_at_end(const std::filesystem::path& samples, const std::string& sha256);
  void make_place(const std::filesystem::path& samples);
  std::string write_samples() const;

  std::filesystem::path folder_, samples_;
  JournalHead head_;
  AnswerDifference differs_;
  std::vector<LogFile> files_{};
  std::map<int64_t, Place> places_{};
  std::vector<std::string> notices_{};
  std::optional<FileDescriptor> own_{};
  size_t own_file_ = 0;
  std::string end_{};                    // what a last line says of the file of answers; empty: none does
  std::string ended_{};                  // the name of that file
  std::string other_{}, differences_{};  // a file of another identity, and what differs
  std::string different_answer_{};
  bool is_complete_ = false;
};

}  // namespace tessera
