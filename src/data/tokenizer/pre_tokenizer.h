#pragma once
// What cuts text into words: the "pre_tokenizer" part of tokenizer.json.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "data/tokenizer/regex.h"

namespace tessera::tokenizer {

/// A text under way: its words are ranges of `text`, in order; what lies between them is dropped.
struct Words {
  std::string text;
  std::vector<Range> ranges;
  bool at_start = false;  // whether the first word begins the whole input

  std::string_view word(const Range& range) const {
    return std::string_view(text).substr(range.begin, range.end - range.begin);
  }
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// Cuts each word further, or changes its spelling.
  virtual void apply(Words& words) const = 0;
};

/// ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation or a Sequence of them.
/// @throws UserError on another type or a malformed one
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& json);

}  // namespace tessera::tokenizer
