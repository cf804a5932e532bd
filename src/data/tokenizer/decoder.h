#pragma once
// What joins tokens into text: the "decoder" part of tokenizer.json.

#include <memory>
#include <string>
#include <vector>

#include "core/json.h"

namespace tessera::tokenizer {

class Decoder {
 public:
  virtual ~Decoder() = default;
  /// Pieces of text from pieces of text; the last decoder's pieces are joined.
  virtual std::vector<std::string> apply(std::vector<std::string> pieces) const = 0;
};

/// ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip or a Sequence of them.
/// @throws UserError on another type or a malformed one
std::unique_ptr<Decoder> make_decoder(const Json& json);

}  // namespace tessera::tokenizer
