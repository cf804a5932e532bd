#pragma once
// Tokens that are cut out of a text before anything else looks at it: the "added_tokens" of tokenizer.json.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/json.h"
#include "data/tokenizer/normalizer.h"

namespace tessera::tokenizer {

struct AddedToken {
  std::string content;
  int64_t id = 0;
  bool special = false;                 // left out when special tokens are skipped, ordinary text in Special::plain
  bool single_word = false;             // only where no word character touches it
  bool lstrip = false, rstrip = false;  // takes the white space before (after) it along
  bool normalized = true;               // looked for after the normalizer, else before

  static AddedToken read(const Json& json);
};

/// A part of a text: an added token, or (id -1) text between.
struct Section {
  std::string_view text;
  int32_t id;
};

/// Finds any of a set of tokens: the leftmost, of those the longest.
class TokenFinder {
 public:
  TokenFinder();
  void add(std::string_view content, const AddedToken& token);

  /// The sections of `text`, in order, none empty. @param parse_special  else special tokens are ordinary text
  std::vector<Section> cut(std::string_view text, bool parse_special) const;

 private:
  /// A trie: a path of bytes from the root spells the beginning of a token.
  struct Node {
    std::vector<std::pair<char, int32_t>> children;
    int32_t token = -1;  // the token that ends here, as an index of tokens_
  };
  struct Match {
    size_t end;
    int32_t token;
  };
  Match longest_at(std::string_view text, size_t begin) const;

  std::vector<Node> nodes_;
  std::array<bool, 256> first_bytes_{};
  std::vector<AddedToken> tokens_;
};

}  // namespace tessera::tokenizer
