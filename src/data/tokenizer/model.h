#pragma once
// What turns a word into ids: the "model" part of tokenizer.json.

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "data/tokenizer/vocabulary.h"

namespace tessera::tokenizer {

class Model {
 public:
  virtual ~Model() = default;
  /// Appends the ids of each word, in order.
  virtual void tokenize(const std::vector<std::string_view>& words, std::vector<int32_t>& ids) const = 0;
};

/// @param model       the "model" object: BPE or WordLevel
/// @param vocabulary  its tokens; must outlive the result
/// @throws UserError on another type or a malformed one
std::unique_ptr<Model> make_model(const Json& model, const Vocabulary& vocabulary);

std::unique_ptr<Model> make_bpe(const Json& model, const Vocabulary& vocabulary);
std::unique_ptr<Model> make_word_level(const Json& model, const Vocabulary& vocabulary);

}  // namespace tessera::tokenizer
