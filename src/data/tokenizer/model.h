#pragma once
// What turns a word into ids: the "model" part of tokenizer.json.

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "data/tokenizer/vocabulary.h"

namespace tessera::tokenizer {

/// Tokens that words do not become although they spell them; none where it is empty.
using HiddenTokens = std::vector<bool>;  // [ids]

class Model {
 public:
  virtual ~Model() = default;
  /// Appends the ids of each word, in order. A word that spells a hidden token becomes what it would be if the model's
  /// vocabulary did not have it: its parts, its bytes, the unknown token.
  virtual void tokenize(const std::vector<std::string_view>& words, const HiddenTokens& hidden,
                        std::vector<int32_t>& ids) const = 0;

 protected:
  static bool is_hidden(const HiddenTokens& hidden, int32_t id) {
    return id >= 0 && static_cast<size_t>(id) < hidden.size() && hidden[id];
  }
};

/// @param model       the "model" object: BPE or WordLevel
/// @param vocabulary  its tokens; must outlive the result
/// @throws UserError on another type or a malformed one
std::unique_ptr<Model> make_model(const Json& model, const Vocabulary& vocabulary);

std::unique_ptr<Model> make_bpe(const Json& model, const Vocabulary& vocabulary);
std::unique_ptr<Model> make_word_level(const Json& model, const Vocabulary& vocabulary);

}  // namespace tessera::tokenizer
