// Decoders turn the spellings of tokens into text, step by step. Until the last step pieces stay apart, since some
// steps look at the first piece alone, or at runs of pieces that are bytes.

#include "data/tokenizer/decoder.h"

#include <charconv>

#include "core/error.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/component.h"
#include "data/tokenizer/unicode.h"

namespace tessera::tokenizer {
namespace {

using Pieces = std::vector<std::string>;

constexpr size_t kMostBytes = size_t{1} << 26;  // that a replacement may make of a piece

class Sequence : public Decoder {
 public:
  explicit Sequence(const Json& json) {
    for (const Json& part : json.at("decoders").items()) parts_.push_back(make_decoder(part));
  }
  Pieces apply(Pieces pieces) const override {
    for (const auto& part : parts_) pieces = part->apply(std::move(pieces));
    return pieces;
  }

 private:
  std::vector<std::unique_ptr<Decoder>> parts_;
};

class ByteLevel : public Decoder {
 public:
  Pieces apply(Pieces pieces) const override {
    std::string bytes;
    // Bytes of all pieces first: a character may be spread over several tokens.
    for (const std::string& piece : pieces) ByteAlphabet::get().append_bytes(bytes, piece);
    return {replace_invalid_utf8(bytes)};
  }
};

/// One piece of all: a decoder behind it, such as Strip, then sees the ends of the text and not of every token.
class Fuse : public Decoder {
 public:
  Pieces apply(Pieces pieces) const override {
    std::string text;
    for (const std::string& piece : pieces) text += piece;
    return {std::move(text)};
  }
};

/// The byte that "<0x41>" spells, or -1.
int fallback_byte(std::string_view piece) {
  // "<0x", two digits, ">".
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
  unsigned value = 0;
  const auto [end, error] = std::from_chars(&piece[3], &piece[5], value, 16);
  return error == std::errc() && end == &piece[5] ? static_cast<int>(value) : -1;
}

/// Turns runs of byte tokens into text; a run that is not valid UTF-8 becomes one U+FFFD a byte.
class ByteFallback : public Decoder {
 public:
  Pieces apply(Pieces pieces) const override {
    Pieces result;
    std::string run;
    const auto end_run = [&] {
      if (is_valid_utf8(run)) {
        if (!run.empty()) result.push_back(run);
      } else {
        // As Hugging Face's decoder has it.
        result.insert(result.end(), run.size(), "\xEF\xBF\xBD");
      }
      run.clear();
    };
    for (std::string& piece : pieces) {
      if (const int byte = fallback_byte(piece); byte >= 0) {
        run += static_cast<char>(byte);
      } else {
        end_run();
        result.push_back(std::move(piece));
      }
    }
    end_run();
    return result;
  }
};

class Replace : public Decoder {
 public:
  explicit Replace(const Json& json)
      : pattern_(read_pattern(json.at("pattern"))), content_(json.at("content").as_string()) {}
  Pieces apply(Pieces pieces) const override {
    for (std::string& piece : pieces) piece = pattern_.replace_all(piece, content_, kMostBytes);
    return pieces;
  }

 private:
  Regex pattern_;
  std::string content_;
};

/// Takes up to `start` and `stop` copies of a character off the ends of each piece.
class Strip : public Decoder {
 public:
  explicit Strip(const Json& json)
      : content_(json.at("content").as_string()),
        start_(json.at("start").as_integer()),
        stop_(json.at("stop").as_integer()) {
    if (content_.empty()) throw UserError("", "the decoder \"Strip\" needs a character as \"content\", found \"\"");
  }
  Pieces apply(Pieces pieces) const override {
    for (std::string& piece : pieces) piece = strip(piece);
    return pieces;
  }

 private:
  std::string strip(std::string_view piece) const {
    for (int64_t i = 0; i < start_ && piece.substr(0, content_.size()) == content_; ++i)
      piece.remove_prefix(content_.size());
    for (int64_t i = 0; i < stop_ && ends_with(piece); ++i) piece.remove_suffix(content_.size());
    return std::string(piece);
  }
  bool ends_with(std::string_view piece) const {
    return piece.size() >= content_.size() && piece.substr(piece.size() - content_.size()) == content_;
  }

  std::string content_;
  int64_t start_, stop_;
};

/// "▁" is a space, but for those of the first piece if the pre-tokenizer put one there.
class Metaspace : public Decoder {
 public:
  explicit Metaspace(const Json& json) : mark_(Regex::literal(text_or(json, "replacement", "▁"))) {
    // Older files say it by another key.
    const std::string old_style = flag_or(json, "add_prefix_space", true) ? "always" : "never";
    strips_first_ = text_or(json, "prepend_scheme", old_style) != "never";
  }
  Pieces apply(Pieces pieces) const override {
    for (size_t i = 0; i < pieces.size(); ++i) {
      pieces[i] = mark_.replace_all(pieces[i], i == 0 && strips_first_ ? "" : " ", kMostBytes);
    }
    return pieces;
  }

 private:
  Regex mark_;
  bool strips_first_;
};

}  // namespace

std::unique_ptr<Decoder> make_decoder(const Json& json) {
  const std::string& type = type_of(json);
  if (type == "Sequence") return std::make_unique<Sequence>(json);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Metaspace") return std::make_unique<Metaspace>(json);
  if (type == "Replace") return std::make_unique<Replace>(json);
  if (type == "Strip") return std::make_unique<Strip>(json);
  not_supported("decoder", type, "Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip");
}

}  // namespace tessera::tokenizer
