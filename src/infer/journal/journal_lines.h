#pragma once
// The three kinds of lines of a journal of answers, as text and back.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "infer/journal/run_identity.h"

namespace tessera {

/// What the first line of each journal keeps.
struct JournalHead {
  RunIdentity identity{};
  std::string answers = "samples.jsonl";         // the name of the file of answers, in the run's folder
  std::map<std::string, std::string> made_on{};  // "backend", "vector", "version": answers may differ in bits elsewhere
};

// None of them with a line break. The readers throw UserError without a place when a line is not as it was written.
std::string head_line(const JournalHead&);
JournalHead read_head_line(std::string_view);

std::string end_line(const std::string& sha256);
bool is_end_line(std::string_view);
std::string read_end_line(std::string_view);

std::string answer_line(int64_t number, std::string_view answer);
struct AnswerLine {
  int64_t number = 0;
  std::string_view answer{};
};
AnswerLine read_answer_line(std::string_view);

/// Calls `use` with each line of a file in order, and the byte at which it begins. Only what is between two line breaks
/// is held in memory.
/// @return bytes up to the end of the last whole line; what is behind it is the front of a line that was torn
int64_t for_each_whole_line(const std::filesystem::path&,
                            const std::function<void(std::string_view line, int64_t begin)>& use);

}  // namespace tessera
