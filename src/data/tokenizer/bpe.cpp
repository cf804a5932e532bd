// Byte-pair encoding (Sennrich et al. 2016): a word starts as its characters; again and again the neighbours whose
// merge has the lowest rank, the leftmost of equals, become one symbol.
//
// The symbols are a doubly linked list in an array, the possible merges a heap by (rank, position):
//
//   symbols   l <-> o <-> w <-> e <-> r        heap   (2, "er" at 3) (7, "lo" at 0) ...
//
// A merge leaves the right symbol dead, and makes at most two new neighbours and so two new heap entries; an entry whose
// symbols have changed since is skipped. A word of n characters takes O(n log n), which matters where whole documents
// are one word (SentencePiece-style models).

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/random.h"
#include "data/tokenizer/component.h"
#include "data/tokenizer/model.h"
#include "data/tokenizer/unicode.h"

namespace tessera::tokenizer {
namespace {

constexpr int32_t kNone = -1;

struct Merge {
  int32_t rank = kNone, id = kNone;
};

/// Merges by their pair of ids: open addressing, at most half full.
class MergeTable {
 public:
  explicit MergeTable(size_t count) {
    size_t slots = 16;
    while (slots < 2 * count) slots *= 2;
    slots_.resize(slots);
  }
  void set(int32_t left, int32_t right, Merge merge) { slots_[place(key(left, right))] = {key(left, right), merge}; }
  /// A merge of rank -1 if there is none.
  Merge find(int32_t left, int32_t right) const { return slots_[place(key(left, right))].merge; }

 private:
  struct Slot {
    uint64_t key = ~uint64_t{0};  // no pair of ids: ids are not negative
    Merge merge;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  }
  size_t place(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    size_t i = mix64(key) & mask;
    while (slots_[i].key != key && slots_[i].key != ~uint64_t{0}) i = (i + 1) & mask;
    return i;
  }
  std::vector<Slot> slots_;
};

/// One word being merged; kept between words for its memory.
class Word {
 public:
  void clear() { symbols_.clear(); }

  void add(int32_t id) {
    const auto index = static_cast<int32_t>(symbols_.size());
    if (index > 0) symbols_.back().next = index;
    symbols_.push_back({id, index - 1, kNone});
  }

  void merge_all(const MergeTable& merges) {
    heap_.clear();
    for (size_t i = 0; i + 1 < symbols_.size(); ++i) offer(merges, static_cast<int32_t>(i));
    std::make_heap(heap_.begin(), heap_.end(), later);
    while (!heap_.empty()) {
      const Candidate candidate = heap_.front();
      std::pop_heap(heap_.begin(), heap_.end(), later);
      heap_.pop_back();
      if (is_current(merges, candidate)) join(merges, candidate);
    }
  }

  void append_to(std::vector<int32_t>& ids) const {
    for (const Symbol& symbol : symbols_)
      if (symbol.id != kNone) ids.push_back(symbol.id);
  }

 private:
  struct Symbol {
    int32_t id, previous, next;  // id -1: merged into the symbol before
  };
  struct Candidate {
    int32_t rank, left, id;
  };
  static bool later(const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  }

  /// Adds the merge of the symbols at `left` and after it to the end of the heap's array.
  bool offer(const MergeTable& merges, int32_t left) {
    const Merge merge = merges.find(symbols_[left].id, symbols_[symbols_[left].next].id);
    if (merge.rank == kNone) return false;
    heap_.push_back({merge.rank, left, merge.id});
    return true;
  }

  /// Hugging Face's test: whatever pair is there now, it must give the same token.
  bool is_current(const MergeTable& merges, const Candidate& candidate) const {
    const Symbol& left = symbols_[candidate.left];
    if (left.id == kNone || left.next == kNone) return false;
    return merges.find(left.id, symbols_[left.next].id).id == candidate.id;
  }

  void join(const MergeTable& merges, const Candidate& candidate) {
    Symbol& left = symbols_[candidate.left];
    Symbol& right = symbols_[left.next];
    left.id = candidate.id;
    left.next = right.next;
    right.id = kNone;
    if (left.next != kNone) symbols_[left.next].previous = candidate.left;
    if (left.previous != kNone && offer(merges, left.previous)) std::push_heap(heap_.begin(), heap_.end(), later);
    if (left.next != kNone && offer(merges, candidate.left)) std::push_heap(heap_.begin(), heap_.end(), later);
  }

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

class Bpe : public Model {
 public:
  Bpe(const Json& json, const Vocabulary& vocabulary)
      : vocabulary_(vocabulary),
        fuse_unknown_(flag_or(json, "fuse_unk", false)),
        byte_fallback_(flag_or(json, "byte_fallback", false)),
        ignore_merges_(flag_or(json, "ignore_merges", false)),
        merges_(json.at("merges").items().size()) {
    refuse_unsupported(json);
    if (const Json* unknown = json.find("unk_token")) unknown_ = vocabulary.at(unknown->as_string(), "\"unk_token\"");
    read_merges(json.at("merges").items());
    list_characters();
  }

  void tokenize(const std::vector<std::string_view>& words, std::vector<int32_t>& ids) const override {
    Word scratch;
    for (const std::string_view word : words) {
      const auto whole = ignore_merges_ ? vocabulary_.find(word) : std::nullopt;
      if (whole) {
        ids.push_back(*whole);
        continue;
      }
      scratch.clear();
      add_characters(word, scratch);
      scratch.merge_all(merges_);
      scratch.append_to(ids);
    }
  }

 private:
  static void refuse_unsupported(const Json& json) {
    const Json* dropout = json.find("dropout");
    if (dropout && dropout->as_number() != 0) {
      throw UserError("", "a BPE model with \"dropout\" is not supported: its ids would be random", "set it to null");
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!text_or(json, key, "").empty()) throw UserError("", fmt::format("a BPE model with \"{}\" is not supported", key));
    }
  }

  /// Merges come as "left right" or as ["left", "right"], which allows spaces in tokens.
  void read_merges(const Json::Array& merges) {
    int32_t rank = 0;
    std::string joined;
    for (const Json& merge : merges) {
      std::string_view left, right;
      if (merge.is_string()) {
        const std::string_view line = merge.as_string();
        if (line.substr(0, 8) == "#version") continue;
        const size_t space = line.find(' ');
        if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
          throw UserError("", fmt::format("merge {} is \"{}\", expected two tokens with a space between", rank, line));
        }
        left = line.substr(0, space);
        right = line.substr(space + 1);
      } else {
        const auto& pair = merge.items();
        if (pair.size() != 2) throw UserError("", fmt::format("merge {} has {} tokens, expected 2", rank, pair.size()));
        left = pair[0].as_string();
        right = pair[1].as_string();
      }
      joined.assign(left).append(right);
      const auto id = [&](std::string_view token) {
        const auto found = vocabulary_.find(token);
        if (!found) {
          throw UserError("", fmt::format("merge {} (\"{}\" and \"{}\") names the token \"{}\", which is not in the vocabulary",
                                          rank, left, right, token));
        }
        return *found;
      };
      merges_.set(id(left), id(right), {rank, id(joined)});
      ++rank;
    }
  }

  /// Most text is in a few hundred characters; their ids are looked up without hashing.
  void list_characters() {
    for (int32_t c = 0; c < kListedCharacters; ++c) {
      std::string text;
      append_utf8(text, c);
      characters_[c] = vocabulary_.find(text).value_or(kNone);
    }
    for (int byte = 0; byte < 256; ++byte) {
      bytes_[byte] = byte_fallback_ ? vocabulary_.find(fmt::format("<0x{:02X}>", byte)).value_or(kNone) : kNone;
    }
  }

  void add_characters(std::string_view word, Word& symbols) const {
    bool after_unknown = false;
    while (!word.empty()) {
      const CodePoint next = first_code_point(word);
      const std::string_view character = word.substr(0, next.length);
      word.remove_prefix(next.length);
      const int32_t id = next.value < kListedCharacters ? characters_[next.value] : vocabulary_.find(character).value_or(kNone);
      if (id != kNone) symbols.add(id);
      const bool known = id != kNone || add_bytes(character, symbols);
      if (!known && unknown_ && !(after_unknown && fuse_unknown_)) symbols.add(*unknown_);
      after_unknown = !known;
    }
  }

  bool add_bytes(std::string_view character, Word& symbols) const {
    for (const char c : character)
      if (bytes_[static_cast<uint8_t>(c)] == kNone) return false;
    for (const char c : character) symbols.add(bytes_[static_cast<uint8_t>(c)]);
    return true;
  }

  static constexpr int32_t kListedCharacters = 0x180;
  const Vocabulary& vocabulary_;
  bool fuse_unknown_, byte_fallback_, ignore_merges_;
  std::optional<int32_t> unknown_;
  MergeTable merges_;
  std::array<int32_t, kListedCharacters> characters_;
  std::array<int32_t, 256> bytes_;
};

}  // namespace

std::unique_ptr<Model> make_bpe(const Json& model, const Vocabulary& vocabulary) {
  return std::make_unique<Bpe>(model, vocabulary);
}

}  // namespace tessera::tokenizer
