// Words are ranges of one text, so that cutting copies nothing. Steps that change the spelling (bytes as characters,
// spaces as marks) write the text anew and move the ranges along.

#include "data/tokenizer/pre_tokenizer.h"

#include "core/error.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/component.h"
#include "data/tokenizer/unicode.h"

namespace tessera::tokenizer {
namespace {

/// What becomes of a delimiter, the part of a text that a pattern matches.
enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior read_behavior(const std::string& name) {
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  not_supported("behavior", name, "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

struct Span {
  Range range;
  bool is_delimiter;
};

/// Cuts words at the matches of a pattern.
class Cutter {
 public:
  Cutter(Regex pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(Words& words) const {
    std::vector<Range> result;
    // About four bytes a word: no growing in most texts.
    result.reserve(words.ranges.size() + words.text.size() / 4);
    std::vector<Range> matches;
    std::vector<Span> spans;
    for (const Range& word : words.ranges) {
      matches.clear();
      pattern_.find_all(words.word(word), matches);
      cover(word, matches, spans);
      join(spans, result);
    }
    words.ranges = std::move(result);
  }

 private:
  /// Spans that cover the word: the matches and what lies between them.
  void cover(const Range& word, const std::vector<Range>& matches, std::vector<Span>& spans) const {
    spans.clear();
    size_t done = word.begin;
    for (const Range& match : matches) {
      const Range range{word.begin + match.begin, word.begin + match.end};
      // Matches and what is between them take turns; `invert` makes the pattern say what words are, not what parts
      // them.
      if (done < range.begin) spans.push_back({{done, range.begin}, invert_});
      spans.push_back({range, !invert_});
      done = range.end;
    }
    if (done < word.end) spans.push_back({{done, word.end}, invert_});
  }

  void join(const std::vector<Span>& spans, std::vector<Range>& result) const {
    const auto emit = [&](Range range) {
      if (range.begin < range.end) result.push_back(range);
    };
    for (size_t i = 0; i < spans.size(); ++i) {
      Range range = spans[i].range;
      const auto next_is_delimiter = [&](bool wanted) {
        return i + 1 < spans.size() && spans[i + 1].is_delimiter == wanted;
      };
      switch (behavior_) {
        case Behavior::removed:
          if (!spans[i].is_delimiter) emit(range);
          continue;
        case Behavior::isolated:
          break;
        case Behavior::contiguous:
          // Neighbours of one kind are one word.
          while (next_is_delimiter(spans[i].is_delimiter)) range.end = spans[++i].range.end;
          break;
        case Behavior::merged_with_previous:
          // A delimiter belongs to the word before it.
          if (!spans[i].is_delimiter && next_is_delimiter(true)) range.end = spans[++i].range.end;
          break;
        case Behavior::merged_with_next:
          // A delimiter belongs to the word behind it.
          if (spans[i].is_delimiter && next_is_delimiter(false)) range.end = spans[++i].range.end;
          break;
      }
      emit(range);
    }
  }

  Regex pattern_;
  Behavior behavior_;
  bool invert_;
};

class Split : public PreTokenizer {
 public:
  explicit Split(Cutter cutter) : cutter_(std::move(cutter)) {}
  void apply(Words& words) const override { cutter_.apply(words); }

 private:
  Cutter cutter_;
};

/// What the library counts as punctuation: the marks of ASCII, and the category P of Unicode 8, which lacks those of
/// later versions and has two characters that became letters and symbols since.
constexpr const char* kPunctuation =
    R"((?![\x{61D}\x{9FD}\x{A76}\x{C77}\x{C84}\x{1B7D}\x{1B7E}\x{2E43}-\x{2E5D}\x{10EAD}\x{10F55}-\x{10F59})"
    R"(\x{10F86}-\x{10F89}\x{1144B}-\x{1144F}\x{1145A}-\x{1145D}\x{11660}-\x{1166C}\x{116B9}\x{1183B})"
    R"(\x{11944}-\x{11946}\x{119E2}\x{11A3F}-\x{11A46}\x{11A9A}-\x{11AA2}\x{11C41}-\x{11C45}\x{11C70}\x{11C71})"
    R"(\x{11EF7}\x{11EF8}\x{11FFF}\x{12FF1}\x{12FF2}\x{16E97}-\x{16E9A}\x{16FE2}\x{1E95E}\x{1E95F}]))"
    R"([\p{P}$+<=>^`|~\x{166D}\x{111C9}])";

std::unique_ptr<PreTokenizer> make_split(const char* pattern, Behavior behavior, bool invert = false) {
  return std::make_unique<Split>(Cutter(Regex(pattern), behavior, invert));
}

std::unique_ptr<PreTokenizer> make_split(const Json& json) {
  return std::make_unique<Split>(Cutter(read_pattern(json.at("pattern")),
                                        read_behavior(json.at("behavior").as_string()),
                                        flag_or(json, "invert", false)));
}

/// Cuts into runs of word characters and runs of others, and drops white space.
class Whitespace : public PreTokenizer {
 public:
  void apply(Words& words) const override {
    std::vector<Range> result;
    for (const Range& word : words.ranges) cut(words.text, word, result);
    words.ranges = std::move(result);
  }

 private:
  enum class Kind { space, word, other };
  static void cut(std::string_view text, const Range& word, std::vector<Range>& result) {
    Kind before = Kind::space;
    for (size_t at = word.begin; at < word.end;) {
      const CodePoint next = first_code_point(text.substr(at, word.end - at));
      const Kind kind = is_white_space(next.value)      ? Kind::space
                        : is_word_character(next.value) ? Kind::word
                                                        : Kind::other;
      const size_t end = at + static_cast<size_t>(next.length);
      if (kind != Kind::space && kind == before)
        result.back().end = end;
      else if (kind != Kind::space)
        result.push_back({at, end});
      before = kind;
      at = end;
    }
  }
};

/// Spells words in the byte alphabet, after GPT-2's cut where it is asked for.
class ByteLevel : public PreTokenizer {
 public:
  explicit ByteLevel(const Json& json) : add_prefix_space_(flag_or(json, "add_prefix_space", true)) {
    if (flag_or(json, "use_regex", true)) {
      // GPT-2's words: contractions, then runs of letters, digits or other signs with a space in front, and white space
      // but for its last character where a word follows, which that word takes.
      cutter_.emplace(Regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"),
                      Behavior::isolated, false);
    }
  }

  void apply(Words& words) const override {
    if (add_prefix_space_) add_prefix_spaces(words);
    if (cutter_) cutter_->apply(words);
    spell(words);
  }

 private:
  static void add_prefix_spaces(Words& words) {
    std::string text;
    for (Range& range : words.ranges) {
      const std::string_view word = words.word(range);
      const size_t begin = text.size();
      // A word that begins with a space has its prefix.
      if (word.substr(0, 1) != " ") text += ' ';
      text += word;
      range = {begin, text.size()};
    }
    words.text = std::move(text);
  }

  static void spell(Words& words) {
    const ByteAlphabet& alphabet = ByteAlphabet::get();
    std::string text;
    // Spaces and bytes of other letters become two bytes each.
    text.reserve(words.text.size() * 3 / 2);
    for (Range& range : words.ranges) {
      const size_t begin = text.size();
      for (const char c : words.word(range)) text += alphabet.character(static_cast<uint8_t>(c));
      range = {begin, text.size()};
    }
    words.text = std::move(text);
  }

  bool add_prefix_space_;
  std::optional<Cutter> cutter_;
};

/// Writes a space as "▁", puts one in front, and cuts before each.
class Metaspace : public PreTokenizer {
 public:
  explicit Metaspace(const Json& json) : mark_(text_or(json, "replacement", "▁")), prepend_(read_prepend(json)) {
    if (flag_or(json, "split", true)) cutter_.emplace(Regex::literal(mark_), Behavior::merged_with_next, false);
  }

  void apply(Words& words) const override {
    std::string text;
    for (Range& range : words.ranges) {
      const std::string_view word = words.word(range);
      const size_t begin = text.size();
      // A space in front becomes a mark by itself: there would be two.
      const bool has_mark = word.substr(0, 1) == " " || word.substr(0, mark_.size()) == mark_;
      // "first" asks for the beginning of the whole input; a word behind an added token is none.
      const bool wants_mark = prepend_ == "always" || (prepend_ == "first" && words.at_start && range.begin == 0);
      if (wants_mark && !has_mark) text += mark_;
      for (const char c : word) {
        if (c == ' ')
          text += mark_;
        else
          text += c;
      }
      range = {begin, text.size()};
    }
    words.text = std::move(text);
    if (cutter_) cutter_->apply(words);
  }

 private:
  static std::string read_prepend(const Json& json) {
    const std::string old_style = flag_or(json, "add_prefix_space", true) ? "always" : "never";
    std::string scheme = text_or(json, "prepend_scheme", old_style);
    if (scheme != "always" && scheme != "first" && scheme != "never") {
      not_supported("prepend_scheme", scheme, "always, first, never");
    }
    return scheme;
  }

  std::string mark_, prepend_;
  std::optional<Cutter> cutter_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(const Json& json) {
    for (const Json& part : json.at("pretokenizers").items()) parts_.push_back(make_pre_tokenizer(part));
  }
  void apply(Words& words) const override {
    for (const auto& part : parts_) part->apply(words);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& json) {
  const std::string& type = type_of(json);
  if (type == "Sequence") return std::make_unique<Sequence>(json);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(json);
  if (type == "Metaspace") return std::make_unique<Metaspace>(json);
  if (type == "Split") return make_split(json);
  if (type == "Digits") {
    return make_split(R"(\p{N})",
                      flag_or(json, "individual_digits", false) ? Behavior::isolated : Behavior::contiguous);
  }
  if (type == "Whitespace") return std::make_unique<Whitespace>();
  if (type == "WhitespaceSplit") return make_split(R"(\s)", Behavior::removed);
  if (type == "Punctuation") return make_split(kPunctuation, read_behavior(text_or(json, "behavior", "Isolated")));
  not_supported("pre_tokenizer", type,
                "Sequence, ByteLevel, Metaspace, Split, Digits, Whitespace, WhitespaceSplit, Punctuation");
}

}  // namespace tessera::tokenizer
