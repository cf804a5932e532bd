// Patterns of tokenizer.json are written for Oniguruma and run here by PCRE2. Most of the syntax is shared; what is
// read otherwise is rewritten element by element, and what cannot be is refused: a pattern that is almost right would
// cut some texts into other tokens, and nobody would notice.

#include "data/tokenizer/regex.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "data/tokenizer/unicode.h"

namespace tessera::tokenizer {
namespace {

// PCRE2 10.42 counts U+180E as white space and no marks as word characters; Oniguruma has it the other way round.
// The ranges are the circled and squared letters, which have the Alphabetic property without being letters, and ² ³ ¹ ¼
// ½ ¾, which Oniguruma takes for word characters outside of sets.
constexpr std::string_view kSpace = R"(\p{Z}\t-\r\x85)";
constexpr std::string_view kNoSpace =
    R"(\x{0}-\x{8}\x{E}-\x{1F}\x{21}-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027})"
    R"(\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})";
constexpr std::string_view kPosixWord =  // and what \w is inside of a set
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})"
    R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::string_view kHex = "0-9A-Fa-f";  // \h, which is a space to PCRE2

/// The members of a set that a letter behind a backslash stands for; empty when it stands for something else.
std::string_view members_of(char letter) {
  switch (letter) {
    case 's':
    case 'S':
      return kSpace;
    case 'w':
    case 'W':
      return kWord;
    case 'h':
    case 'H':
      return kHex;
    default:
      return {};
  }
}

/// The members of a POSIX set as Oniguruma has them; empty for those that PCRE2 knows the same.
std::string_view members_of_posix(std::string_view name) {
  if (name == "punct") return R"(\p{P}\p{S})";
  if (name == "word") return kPosixWord;
  if (name == "space") return kSpace;
  if (name == "digit") return R"(\p{Nd})";
  if (name == "xdigit") return kHex;
  return {};
}

/// Sequences of letters that Oniguruma takes for one character where case does not matter ("ss" for "ß").
bool has_folded_letters(std::string_view pattern) {
  std::string lower(pattern);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const char* letters : {"ss", "ß", "ẞ", "ff", "fi", "fl", "st"})
    if (lower.find(letters) != std::string::npos) return true;
  return false;
}

/// A general category, which both libraries know by this name.
bool is_category(std::string_view name) {
  if (name.empty() || std::string_view("LMNPSZC").find(name[0]) == std::string_view::npos) return false;
  constexpr std::string_view kSecond[] = {"ultmo", "nce", "dlo", "cdseifo", "mcko", "slp", "cfon"};
  const std::string_view second = kSecond[std::string_view("LMNPSZC").find(name[0])];
  return name.size() == 1 || (name.size() == 2 && second.find(name[1]) != std::string_view::npos);
}

/// Rewrites what the two libraries read differently, one element at a time.
class Translation {
 public:
  explicit Translation(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\' && at_ + 1 < pattern_.size())
        escape(pattern_[at_ + 1]);
      else if (in_set_)
        member(c);
      else
        element(c);
    }
    return result_;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw UserError("", fmt::format("the regular expression \"{}\" has {}, which is not supported", pattern_, what));
  }
  void copy(size_t count) {
    result_ += pattern_.substr(at_, count);
    at_ += count;
  }
  void put(std::string_view text, size_t count) {
    result_ += text;
    at_ += count;
  }
  bool is_next(std::string_view text) const { return pattern_.substr(at_, text.size()) == text; }

  void escape(char letter) {
    const std::string_view members = members_of(letter);
    const bool is_negated = letter == 'S' || letter == 'W' || letter == 'H';
    if (!members.empty() && !in_set_) return put(fmt::format("[{}{}]", is_negated ? "^" : "", members), 2);
    // Inside of a set \w has fewer members than outside: see kPosixWord.
    if (letter == 'w') return put(kPosixWord, 2);
    if (letter == 'S') return put(kNoSpace, 2);
    if (!members.empty() && !is_negated) return put(members, 2);
    if (!members.empty()) refuse(fmt::format("\"\\{}\" inside of a set", letter));
    // A border of words, spelled out: PCRE2's own \b goes by its own \w.
    if (letter == 'b' && !in_set_) return put(fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", kWord), 2);
    if (letter == 'B' && !in_set_) return put(fmt::format("(?:(?<=[{0}])(?=[{0}])|(?<![{0}])(?![{0}]))", kWord), 2);
    if (letter == 'u') return code_point();
    if (letter == 'p' || letter == 'P') return property();
    if (letter == 'v') return put("\\x0B", 2);
    if (letter == 'x' && pattern_.substr(at_ + 2, 1) == "{")
      // As it is, hexadecimal digits in braces included: none of them is an element of its own.
      return copy(std::min(pattern_.find('}', at_), pattern_.size() - 1) + 1 - at_);
    if (std::string_view("XyYOMCQE").find(letter) != std::string_view::npos && !in_set_) {
      refuse(fmt::format("\"\\{}\"", letter));
    }
    copy(2);
  }

  /// \p{L}, \p{^L} or \p{Han}, which PCRE2 would take for the script and what else is written in it.
  void property() {
    const size_t end = pattern_.find('}', at_);
    if (pattern_.substr(at_ + 2, 1) != "{" || end == std::string_view::npos) refuse("\"\\p\" without a name in braces");
    std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    const bool is_negated = name.substr(0, 1) == "^";
    if (is_negated) name.remove_prefix(1);
    put(fmt::format("{}{{{}{}{}}}", pattern_.substr(at_, 2), is_negated ? "^" : "",
                    is_category(name) || name == "Any" ? "" : "sc:", name),
        end + 1 - at_);
  }

  /// \uHHHH
  void code_point() {
    const std::string_view digits = pattern_.substr(at_ + 2, 4);
    if (digits.size() < 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
      refuse("\"\\u\" without four digits");
    put(fmt::format("\\x{{{}}}", digits), 6);
  }

  void member(char c) {
    if (is_next("[:")) return posix();
    if (c == '[' || is_next("&&")) refuse("a set inside of a set");
    if (c == ']') in_set_ = false;
    copy(1);
  }

  void posix() {
    const size_t end = pattern_.find(":]", at_);
    if (end == std::string_view::npos) refuse("\"[:\" without \":]\"");
    const std::string_view name = pattern_.substr(at_ + 2, end - at_ - 2), members = members_of_posix(name);
    if (members.empty()) refuse(fmt::format("\"[:{}:]\"", name));
    put(members, end + 2 - at_);
  }

  void element(char c) {
    if (c == '[') {
      in_set_ = true;
      copy(is_next("[^") ? 2 : 1);
      if (at_ < pattern_.size() && pattern_[at_] == ']') copy(1);  // right behind the bracket it is a member
      return;
    }
    if (is_next("(?")) return group();
    if (is_next("(*")) refuse("\"(*\"");
    if (c == '{') return interval();
    copy(1);
  }

  /// {n}, {n,}, {n,m} or {,m}; any other brace is itself.
  void interval() {
    const size_t end = std::min(pattern_.find('}', at_), pattern_.size());
    const std::string_view inner = pattern_.substr(at_ + 1, end - at_ - 1);
    const bool is_one = end < pattern_.size() && inner.find_first_not_of("0123456789,") == std::string_view::npos &&
                        inner.find(',') == inner.rfind(',') &&
                        inner.find_first_of("0123456789") != std::string_view::npos;
    if (!is_one) return copy(1);
    // Oniguruma repeats the interval there, where PCRE2 makes it possessive or lazy.
    const char next = end + 1 < pattern_.size() ? pattern_[end + 1] : '\0';
    if (next == '+' || (next == '?' && inner.find(',') == std::string_view::npos))
      refuse(fmt::format("\"{{{}}}{}\"", inner, next));
    put(fmt::format("{{{}{}}}", inner[0] == ',' ? "0" : "", inner), end + 1 - at_);
  }

  /// Groups that both libraries read alike: (?:, (?=, (?!, (?<=, (?<!, (?>, (?#, named ones, and the flags i, x and m,
  /// of which m is what PCRE2 calls s.
  void group() {
    size_t end = at_ + 2;
    while (end < pattern_.size() && std::string_view("imx-").find(pattern_[end]) != std::string_view::npos) ++end;
    const bool is_flags = end > at_ + 2 && end < pattern_.size() && (pattern_[end] == ':' || pattern_[end] == ')');
    if (is_flags) {
      std::string flags(pattern_.substr(at_, end - at_));
      // Behind "-" flags are switched off.
      const bool is_caseless = flags.find('i') < flags.find('-');
      if (is_caseless && has_folded_letters(pattern_))
        refuse("\"(?i\" and letters that are folded together (\"ss\", \"st\", ...)");
      std::replace(flags.begin(), flags.end(), 'm', 's');
      return put(flags, flags.size());
    }
    const char kind = at_ + 2 < pattern_.size() ? pattern_[at_ + 2] : '\0';
    if (kind == '\0' || std::string_view(":=!<>#").find(kind) == std::string_view::npos)
      refuse(fmt::format("\"(?{}\"", kind == '\0' ? "" : std::string(1, kind)));
    copy(3);
  }

  std::string_view pattern_;
  size_t at_ = 0;
  bool in_set_ = false;
  std::string result_;
};

tessera::Regex compiled(const std::string& pattern) {
  if (!is_valid_utf8(pattern)) throw UserError("", "a regular expression is not valid UTF-8");
  const std::string text = Translation(pattern).run();
  try {
    // ^ and $ match at lines in Oniguruma's syntax for Ruby, which these files are written in.
    return tessera::Regex(text, Anchors::lines);
  } catch (const UserError& error) {
    throw UserError(
        "", fmt::format("the regular expression \"{}\" is not valid: {} of \"{}\"", pattern, error.message(), text));
  }
}

}  // namespace

Regex::Regex(const std::string& pattern) : pattern_(pattern), compiled_(compiled(pattern)) {}

Regex Regex::literal(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    const bool plain = (c & 0x80) || std::string_view("\\^$.|?*+()[]{}-#/ ").find(c) == std::string_view::npos;
    if (!plain) pattern += '\\';
    pattern += c;
  }
  return Regex(pattern);
}

void Regex::find_all(std::string_view text, std::vector<Range>& matches) const {
  try {
    compiled_.find_all(text, matches);
  } catch (const UserError& error) {
    throw UserError("", fmt::format("the tokenizer's regular expression \"{}\" {}", pattern_, error.message()));
  }
}

std::string Regex::replace_all(std::string_view text, std::string_view content, size_t most) const {
  std::vector<Range> matches;
  find_all(text, matches);
  size_t bytes = text.size();
  // Unsigned: a shorter replacement wraps around, and the sum comes out right.
  for (const Range& match : matches) bytes += content.size() - (match.end - match.begin);
  if (bytes > most)
    throw UserError(
        "",
        fmt::format("the tokenizer would replace \"{:.40}\" and make {} bytes of text, at most {} are allowed",
                    pattern_, bytes, most),
        "look at the normalizer and the decoder in tokenizer.json");
  std::string result;
  result.reserve(bytes);
  size_t done = 0;
  for (const Range& match : matches) {
    result.append(text.substr(done, match.begin - done)).append(content);
    done = match.end;
  }
  return result.append(text.substr(done));
}

}  // namespace tessera::tokenizer
