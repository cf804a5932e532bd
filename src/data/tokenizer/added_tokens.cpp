// The tokens are in a trie of bytes. At each place of a text the longest token that begins there is taken, and the
// search goes on behind it: one walk through the text, however many tokens there are.

#include "data/tokenizer/added_tokens.h"

#include <algorithm>

#include "core/error.h"
#include "data/tokenizer/component.h"
#include "data/tokenizer/unicode.h"

namespace tessera::tokenizer {
namespace {

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  const bool joined_before = begin > 0 && is_word_character(last_code_point(text.substr(0, begin)).value);
  const bool joined_after = end < text.size() && is_word_character(first_code_point(text.substr(end)).value);
  return !joined_before && !joined_after;
}

}  // namespace

AddedToken AddedToken::read(const Json& json) {
  AddedToken token;
  json.members();  // says so when this is no object
  token.content = json.at("content").as_string();
  token.special = flag_or(json, "special", false);
  token.single_word = flag_or(json, "single_word", false);
  token.lstrip = flag_or(json, "lstrip", false);
  token.rstrip = flag_or(json, "rstrip", false);
  token.normalized = flag_or(json, "normalized", !token.special);
  return token;
}

TokenFinder::TokenFinder() : nodes_(1) {}

void TokenFinder::add(std::string_view content, const AddedToken& token) {
  if (content.empty()) return;
  int32_t node = 0;
  // Along the trie, which grows where the path ends.
  for (const char c : content) {
    auto& children = nodes_[node].children;
    const auto found =
        std::find_if(children.begin(), children.end(), [c](const auto& child) { return child.first == c; });
    if (found != children.end()) {
      node = found->second;
      continue;
    }
    const auto fresh = static_cast<int32_t>(nodes_.size());
    children.emplace_back(c, fresh);
    nodes_.emplace_back();
    node = fresh;
  }
  if (nodes_[node].token >= 0) return;  // the normalizer makes one of two tokens: the first counts
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  first_bytes_[static_cast<uint8_t>(content[0])] = true;
  tokens_.push_back(token);
}

TokenFinder::Match TokenFinder::longest_at(std::string_view text, size_t begin) const {
  Match longest{begin, -1};
  int32_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    const auto& children = nodes_[node].children;
    // A node has few children: a linear search is faster than a table.
    const auto found =
        std::find_if(children.begin(), children.end(), [&](const auto& child) { return child.first == text[i]; });
    if (found == children.end()) break;
    node = found->second;
    // A longer match takes the place of a shorter one; what was found stays when the path ends.
    if (nodes_[node].token >= 0) longest = {i + 1, nodes_[node].token};
  }
  return longest;
}

std::vector<Section> TokenFinder::cut(std::string_view text, bool parse_special) const {
  std::vector<Section> sections;
  size_t done = 0;  // everything before is in a section
  const auto add_text_until = [&](size_t end) {
    if (done < end) sections.push_back({text.substr(done, end - done), -1});
  };
  for (size_t i = 0; i < text.size();) {
    // Most bytes begin no token.
    const Match match = first_bytes_[static_cast<uint8_t>(text[i])] ? longest_at(text, i) : Match{i, -1};
    if (match.token < 0) {
      ++i;
      continue;
    }
    size_t begin = i, end = match.end;
    i = end;  // the search goes on here, also where the token takes white space behind it along
    const AddedToken& token = tokens_[match.token];
    if (token.special && !parse_special) continue;
    if (token.single_word && !is_single_word(text, begin, end)) continue;
    // What the token before has taken is not taken twice.
    if (token.lstrip) begin = std::max(done, begin - trailing_white_space(text.substr(0, begin)));
    if (token.rstrip) end += leading_white_space(text.substr(end));
    if (begin >= end) continue;  // in white space that the token before took along
    add_text_until(begin);
    sections.push_back({text.substr(begin, end - begin), static_cast<int32_t>(token.id)});
    done = end;
  }
  add_text_until(text.size());
  return sections;
}

}  // namespace tessera::tokenizer
