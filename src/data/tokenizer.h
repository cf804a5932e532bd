#pragma once
// Text to token ids and back, as the Hugging Face `tokenizer.json` of a model folder says.
//
//   text -> added tokens cut out -> normalizer -> pre-tokenizer -> model (BPE, WordLevel) -> ids
//   ids  -> tokens -> decoder -> text

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// A model's tokenizer. Movable, not copyable; const calls are safe from many threads (there is no hidden cache).
class Tokenizer {
 public:
  /// Reads tokenizer.json (and tokenizer_config.json, special_tokens_map.json, chat_template.jinja where present).
  /// @throws UserError naming the file and the part that is missing, malformed or not supported
  static Tokenizer load(const std::filesystem::path& folder);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// What text that spells a special token ("<s>") becomes: the token, or what it would be if the vocabulary did not
  /// have that token: the tokens of its letters, or the unknown one.
  /// Added tokens that the file does not call special are always recognised.
  enum class Special { parse, plain };

  /// The ids of a text; no BOS or EOS is added. Bytes that are not valid UTF-8 are read as U+FFFD.
  /// Takes O(n log n) time in the length of the text.
  std::vector<int32_t> encode(std::string_view text, Special special = Special::plain) const;

  /// The text of some ids, always valid UTF-8: bytes that form no character come out as U+FFFD (so decode a whole
  /// sequence, not each token alone). Ids that name no token give nothing.
  /// @param skip_special  leave out the tokens that the file calls special
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  /// The text that `ids` add to that of `before`: what comes of both, less what comes of `before` alone. Unlike the
  /// text of `ids` alone it has the space that parts them. Where the end of `before` reads otherwise with `ids` behind
  /// it, the text of `ids` alone.
  std::string decode_after(std::span<const int32_t> before, std::span<const int32_t> ids,
                           bool skip_special = false) const;

  /// Largest id + 1, added tokens included.
  int32_t vocab_size() const;

  /// Begin and end of text, where the tokenizer's files name them.
  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;

  /// What words become that the model has no other token for, where it has such a token.
  std::optional<int32_t> unknown() const;

  /// What the model expects in front of a text and behind it: as a rule BOS, EOS or nothing. See docs/tokenizers.md for
  /// what decides.
  std::span<const int32_t> front() const;
  std::span<const int32_t> back() const;

  /// Whether BOS is in front() (EOS in back()).
  bool add_bos() const;
  bool add_eos() const;

  /// What deserves a word about how the files were read; empty otherwise.
  const std::string& notice() const;

  /// The id of a token as the vocabulary spells it (byte-level "Ġthe", SentencePiece "▁the").
  std::optional<int32_t> token_id(std::string_view token) const;

  /// The vocabulary's spelling of an id; empty for an id that names no token.
  std::string_view token(int32_t id) const;

  /// Changes when any of the files changes.
  uint64_t fingerprint() const;

  /// The chat template's Jinja text; empty when there is none.
  const std::string& chat_template() const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts>);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace tessera
