#pragma once
// The tokens of a data set, document after document, in memory.

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

/// All documents of one split. Document d is tokens [ends[d-1], ends[d]), BOS and EOS included as the tokenizer's
/// config says; scored[i] is 1 when token i counts in the loss as a target (only completions of prompt+completion
/// data; everything but the document's first token otherwise; EOS counts). With data.label_words each record is an
/// example of several documents, its prompt with each of the words: document e · choices + c is choice c of example
/// e, whose right one is answers[e].
struct TokenData {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> scored;
  std::vector<int64_t> ends;
  std::vector<uint8_t> has_prompt{};  // [documents] 1: begins with a prompt; empty: when its second token is not scored
  std::string hash;                   // of the content and of how it was made: ranks compare it
  int64_t choices = 0;                // documents an example; 0: documents stand alone
  std::vector<int32_t> answers;       // [examples], empty without choices
  int64_t documents() const { return static_cast<int64_t>(ends.size()); }
};

/// The right choice of each example, as documents that stand alone: what training by the tokens' likelihood reads.
/// Data without choices stays as it is.
TokenData answers_only(TokenData);

}  // namespace tessera
