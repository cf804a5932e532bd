#pragma once
// The text of a continuation, token by token, and the stop strings in it.

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
  void decode();
  void find_stop(size_t known);

  const Tokenizer* tokenizer_ = nullptr;
  const Request* request_ = nullptr;
  std::vector<int32_t> window_;  // tokens whose text may still change, behind those that show how they begin
  size_t context_ = 0;           // how many of the latter
  std::string context_text_;     // of the latter
  bool fresh_ = true;            // nothing is fixed yet: the context is the prompt's end
  std::string fixed_, open_;     // text of the tokens before those that may change, and of these
  int64_t tokens_ = 0;
  bool stopped_ = false;
};

}  // namespace tessera
