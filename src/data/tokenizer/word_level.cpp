#include "core/error.h"
#include "data/tokenizer/model.h"

namespace tessera::tokenizer {
namespace {

/// A word is one token, or the unknown one.
class WordLevel : public Model {
 public:
  WordLevel(const Json& json, const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
    if (const Json* unknown = json.find("unk_token")) unknown_ = vocabulary.find_of_model(unknown->as_string());
  }

  void tokenize(const std::vector<std::string_view>& words, const HiddenTokens& hidden,
                std::vector<int32_t>& ids) const override {
    for (const std::string_view word : words) {
      const auto id = vocabulary_.find_of_model(word);
      const bool is_usable = id && !is_hidden(hidden, *id);
      if (!is_usable && !unknown_) {
        throw UserError("", fmt::format("the tokenizer has no token for \"{}\" and no unknown token", word));
      }
      ids.push_back(is_usable ? *id : *unknown_);
    }
  }

 private:
  const Vocabulary& vocabulary_;
  std::optional<int32_t> unknown_;
};

}  // namespace

std::unique_ptr<Model> make_word_level(const Json& model, const Vocabulary& vocabulary) {
  return std::make_unique<WordLevel>(model, vocabulary);
}

}  // namespace tessera::tokenizer
