#include "data/tokenizer/model.h"

#include "data/tokenizer/component.h"

namespace tessera::tokenizer {

std::unique_ptr<Model> make_model(const Json& model, const Vocabulary& vocabulary) {
  // Old files leave the type out; only BPE has merges.
  const std::string type = model.find("type") ? type_of(model) : model.find("merges") ? "BPE" : "of no type";
  if (type == "BPE") return make_bpe(model, vocabulary);
  if (type == "WordLevel") return make_word_level(model, vocabulary);
  not_supported("model", type, "BPE, WordLevel");
}

}  // namespace tessera::tokenizer
