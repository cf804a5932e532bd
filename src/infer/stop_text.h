#pragma once
// The text of a continuation, token by token, and the stop strings in it.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "infer/request.h"

namespace tessera {

/// What decode_after(prompt, ids) tells of the ids so far, without decoding all of them anew for each one, and whether
/// one of the request's stop strings is in it. How the text is cut into tokens does not matter: the stop string that
/// is complete first counts (the longest of those that end together), and the text ends in front of it, or behind it
/// with include_stop_str_in_output. The ids stay as they are, those of the stop string included.
/// As stop ids are, stop strings are left alone by the first min_tokens tokens: one that such a token completes stays
/// in the text. A U+FFFD at the end may become a character yet, and no stop string is found with it.
/// Copies are cheap and go their own ways.
class ContinuationText {
 public:
  /// Without text and stop strings.
  ContinuationText() = default;
  /// Both outlive it and its copies.
  ContinuationText(const Tokenizer&, const Request&);

  /// @returns whether a stop string is complete; then no other token follows
  bool append(int32_t id);
  bool stopped() const { return stopped_; }

  /// The whole text, as if no token followed.
  std::string text() const;
  /// The front of the text that no further token can change: without the beginning of what may become a stop string and
  /// without bytes that may become a character. It only grows; behind the last token text() has the rest.
  std::string_view settled() const;

 private:
  void read_open();
  void fix_open();
  void find_stop(size_t read);

  const Tokenizer* tokenizer_ = nullptr;
  const Request* request_ = nullptr;
  size_t longest_stop_ = 0;
  std::vector<int32_t> window_;  // tokens whose text is known, and those behind them whose text may change
  size_t known_ = 0;             // how many the former are
  std::string known_text_;       // what they read as alone
  std::string fixed_, open_;     // text of the continuation: what no token changes any more, and that of the latter
  int64_t tokens_ = 0;
  bool stopped_ = false;
};

}  // namespace tessera
