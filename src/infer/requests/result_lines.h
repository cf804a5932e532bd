#pragma once
// The lines of samples.jsonl: what each kind of request is answered with.

#include <optional>
#include <span>
#include <string>

#include "data/tokenizer.h"
#include "infer/request.h"
#include "infer/requests/request_file.h"

namespace tessera {

/// Of a record with a completion: what a right answer would have been, and whether it was given.
struct ExpectedAnswer {
  std::string text;
  bool is_right = false;
};

/// One answer as JSON on one line. No member holds a time or depends on the schedule: the same requests have the same
/// bytes.
class ResultLines {
 public:
  /// @param identity  of the run (RunIdentity::hex): OpenAI's ids are made of it and of the line's number
  ResultLines(const RequestFile&, const Tokenizer&, std::string identity);

  /// @param number    of the line in RequestFile::lines
  /// @param results   of its requests, in order
  /// @param expected  text and records: adds "expected" and "exact"
  /// @return without a line break
  std::string line(size_t number, std::span<const RequestResult> results,
                   const std::optional<ExpectedAnswer>& expected = {}) const;

 private:
  const RequestFile* file_;
  const Tokenizer* tokenizer_;
  std::string identity_;
};

/// The line with {"index": number, ..} in front, as generate.follow has it.
std::string with_index(size_t number, const std::string& line);

}  // namespace tessera
