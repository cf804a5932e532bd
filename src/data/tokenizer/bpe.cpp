// Byte-pair encoding (Sennrich et al. 2016): a word starts as its characters; again and again the neighbours whose
// merge has the lowest rank, the leftmost of equals, become one symbol.
//
// The symbols are a doubly linked list in an array, the possible merges a heap by (rank, position):
//
//   symbols   l <-> o <-> w <-> e <-> r        heap   (2, "er" at 3) (7, "lo" at 0) ...
//
// A merge leaves the right symbol dead, and makes at most two new neighbours and so two new heap entries; an entry
// whose symbols have changed since is skipped. A word of n characters takes O(n log n), which matters where whole
// documents are one word (SentencePiece-style models). Such a word is cut where no merge can ever join the two
// characters: a merge (l, r) joins the last character of l and the first of r, so pairs of characters that no merge has
// there are safe cuts. The ids stay the same, and the heap stays in the cache (5.5 instead of 0.8 MB/s on Llama-2's
// tokenizer).

#include <algorithm>
#include <array>
#include <unordered_map>

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

/// Merges by their pair of ids: open addressing, at most half full. Grows as it fills.
class MergeTable {
 public:
  MergeTable() : slots_(16) {}
  void set(int32_t left, int32_t right, Merge merge) {
    // At most half full: probes stay short.
    if (2 * (count_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[place(key(left, right))];
    count_ += slot.key == kFree;
    slot = {key(left, right), merge};
  }
  /// A merge of rank -1 if there is none.
  Merge find(int32_t left, int32_t right) const { return slots_[place(key(left, right))].merge; }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};  // no pair of ids in use
  struct Slot {
    uint64_t key = kFree;
    Merge merge;
  };
  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.key != kFree) slots_[place(slot.key)] = slot;
  }
  static uint64_t key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  }
  size_t place(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    size_t i = mix64(key) & mask;
    // Linear probing; a free slot ends it, since nothing is ever removed.
    while (slots_[i].key != key && slots_[i].key != kFree) i = (i + 1) & mask;
    return i;
  }
  std::vector<Slot> slots_;
  size_t count_ = 0;
};

/// One word being merged; kept between words for its memory.
class Word {
 public:
  void clear() { symbols_.clear(); }
  bool empty() const { return symbols_.empty(); }
  int32_t last() const { return symbols_.back().id; }

  void add(int32_t id) {
    const auto index = static_cast<int32_t>(symbols_.size());
    if (index > 0) symbols_.back().next = index;
    symbols_.push_back({id, index - 1, kNone});
  }

  /// Merges whatever can be, but into no hidden token.
  void merge_all(const MergeTable& merges, const HiddenTokens& hidden) {
    hidden_ = &hidden;
    heap_.clear();
    // All pairs of neighbours first, then a heap of them in linear time.
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
  /// Of two entries the one to be merged later: the heap keeps the earliest on top.
  static bool later(const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  }

  /// Adds the merge of the symbols at `left` and after it to the end of the heap's array.
  bool offer(const MergeTable& merges, int32_t left) {
    const Merge merge = merges.find(symbols_[left].id, symbols_[symbols_[left].next].id);
    const bool is_hidden = static_cast<size_t>(merge.id) < hidden_->size() && (*hidden_)[merge.id];
    if (merge.rank == kNone || is_hidden) return false;
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
    // The left symbol becomes the merged one, the right one is unlinked. Its entries in the heap stay, and are passed
    // over.
    left.id = candidate.id;
    left.next = right.next;
    right.id = kNone;
    if (left.next != kNone) symbols_[left.next].previous = candidate.left;
    if (left.previous != kNone && offer(merges, left.previous)) std::push_heap(heap_.begin(), heap_.end(), later);
    if (left.next != kNone && offer(merges, candidate.left)) std::push_heap(heap_.begin(), heap_.end(), later);
  }

  const HiddenTokens* hidden_ = nullptr;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

class Bpe : public Model {
 public:
  Bpe(const Json& json, const Vocabulary& vocabulary)
      : vocabulary_(vocabulary),
        fuse_unknown_(flag_or(json, "fuse_unk", false)),
        byte_fallback_(flag_or(json, "byte_fallback", false)),
        ignore_merges_(flag_or(json, "ignore_merges", false)) {
    refuse_unsupported(json);
    if (const Json* unknown = json.find("unk_token")) unknown_ = vocabulary.at(unknown->as_string(), "\"unk_token\"");
    list_characters();
    read_merges(json.at("merges").items());
  }

  void tokenize(const std::vector<std::string_view>& words, const HiddenTokens& hidden,
                std::vector<int32_t>& ids) const override {
    struct Place {
      size_t begin, end;
    };
    std::unordered_map<std::string_view, Place> seen;  // where in `ids` a word's ids are; most words come again
    Word scratch;
    const Output output{scratch, hidden, ids};
    for (const std::string_view word : words) {
      const auto [place, is_new] = seen.try_emplace(word, Place{ids.size(), 0});
      if (is_new) {
        tokenize_word(word, output);
        place->second.end = ids.size();
      } else {
        for (size_t i = place->second.begin; i < place->second.end; ++i) ids.push_back(ids[i]);
      }
    }
  }

 private:
  /// Where a word's tokens go, and which may not be among them.
  struct Output {
    Word& symbols;
    const HiddenTokens& hidden;
    std::vector<int32_t>& ids;
  };

  static void refuse_unsupported(const Json& json) {
    const Json* dropout = json.find("dropout");
    if (dropout && dropout->as_number() != 0) {
      throw UserError("", "a BPE model with \"dropout\" is not supported: its ids would be random", "set it to null");
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!text_or(json, key, "").empty())
        throw UserError("", fmt::format("a BPE model with \"{}\" is not supported", key));
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
        // The first line of files of merges, which some converters leave among them.
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
          throw UserError(
              "", fmt::format("merge {} (\"{}\" and \"{}\") names the token \"{}\", which is not in the vocabulary",
                              rank, left, right, token));
        }
        return *found;
      };
      // The order of the list is the rank.
      merges_.set(id(left), id(right), {rank, id(joined)});
      note_joins(id(left), id(right));
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

  /// Notes which characters merges join. Merges of tokens that stand for no characters (bytes, the unknown one) would
  /// join what the vocabulary's spelling does not show: then nothing is cut.
  void note_joins(int32_t left, int32_t right) {
    const std::string_view before = vocabulary_.token(left), after = vocabulary_.token(right);
    if (is_opaque(left) || is_opaque(right) || before.empty() || after.empty()) {
      cuts_ = false;
      return;
    }
    const CodePoint last = last_code_point(before), first = first_code_point(after);
    const int32_t last_id = character_id(last, before.substr(before.size() - last.length));
    const int32_t first_id = character_id(first, after.substr(0, first.length));
    if (last_id != kNone && first_id != kNone) joins_.set(last_id, first_id, {0, 0});
  }

  bool is_opaque(int32_t id) const {
    return id == unknown_ || (byte_fallback_ && std::find(bytes_.begin(), bytes_.end(), id) != bytes_.end());
  }

  int32_t character_id(CodePoint code_point, std::string_view text) const {
    const bool is_listed = code_point.value >= 0 && code_point.value < kListedCharacters;
    return is_listed ? characters_[code_point.value] : vocabulary_.find_of_model(text).value_or(kNone);
  }

  void tokenize_word(std::string_view word, const Output& to) const {
    // Such models (Llama 3's) hold whole words that their merges would not lead to.
    if (const auto whole = ignore_merges_ ? vocabulary_.find_of_model(word) : std::nullopt) {
      if (!is_hidden(to.hidden, *whole)) return to.ids.push_back(*whole);
    }
    // As in the reference library the unknown token waits for the next known or unknown character, and lets bytes pass.
    bool is_waiting = false;
    while (!word.empty()) {
      const CodePoint next = first_code_point(word);
      const std::string_view character = word.substr(0, next.length);
      word.remove_prefix(next.length);
      const int32_t id = character_id(next, character);
      const bool is_known = id != kNone && !(is_hidden(to.hidden, id) && has_other_spelling(character));
      if (!is_known && add_bytes(character, to)) continue;
      if (is_waiting && (is_known || !fuse_unknown_)) add(*unknown_, to);
      is_waiting = !is_known && unknown_;
      if (is_known) add(id, to);
    }
    if (is_waiting) add(*unknown_, to);
    finish(to);
  }

  /// A hidden character is written in bytes or is unknown. Where there is neither it stays, for text is never lost.
  bool has_other_spelling(std::string_view character) const { return unknown_ || has_bytes(character); }

  bool has_bytes(std::string_view character) const {
    return std::all_of(character.begin(), character.end(),
                       [&](char c) { return bytes_[static_cast<uint8_t>(c)] != kNone; });
  }

  bool add_bytes(std::string_view character, const Output& to) const {
    if (!has_bytes(character)) return false;
    for (const char c : character) add(bytes_[static_cast<uint8_t>(c)], to);
    return true;
  }

  void add(int32_t id, const Output& to) const {
    // No merge joins these two: what was gathered is finished by itself.
    if (cuts_ && !to.symbols.empty() && joins_.find(to.symbols.last(), id).rank == kNone) finish(to);
    to.symbols.add(id);
  }

  void finish(const Output& to) const {
    to.symbols.merge_all(merges_, to.hidden);
    to.symbols.append_to(to.ids);
    to.symbols.clear();
  }

  // Latin letters up to U+017F.
  static constexpr int32_t kListedCharacters = 0x180;
  const Vocabulary& vocabulary_;
  bool fuse_unknown_, byte_fallback_, ignore_merges_;
  std::optional<int32_t> unknown_;
  MergeTable merges_;
  MergeTable joins_;  // pairs of characters that some merge joins
  bool cuts_ = true;  // whether `joins_` knows all of them
  std::array<int32_t, kListedCharacters> characters_;
  std::array<int32_t, 256> bytes_;
};

}  // namespace

std::unique_ptr<Model> make_bpe(const Json& model, const Vocabulary& vocabulary) {
  return std::make_unique<Bpe>(model, vocabulary);
}

}  // namespace tessera::tokenizer
