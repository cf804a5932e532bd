#pragma once
// What changes the text before it is cut into words: the "normalizer" part of tokenizer.json.

#include <memory>
#include <string>

#include "core/json.h"

namespace tessera::tokenizer {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// @param text  valid UTF-8, and so is the result
  /// @throws UserError when replacements make the text many times as long: a chain of them could take all memory
  std::string apply(std::string text) const {
    // Replacements in use make three bytes of a space, say: eight times the text is far more than they need.
    const size_t most = (size_t{16} << 20) + 8 * text.size();
    return apply_within(most, std::move(text));
  }
  /// @param most  bytes that a replacement may make
  virtual std::string apply_within(size_t most, std::string text) const = 0;
};

/// NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Lowercase or a Sequence of them.
/// @throws UserError on another type or a malformed one
std::unique_ptr<Normalizer> make_normalizer(const Json& json);

}  // namespace tessera::tokenizer
