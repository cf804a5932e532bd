#include "data/tokenizer/special_tokens.h"

#include "core/error.h"
#include "data/tokenizer/component.h"

namespace tessera::tokenizer {
namespace {

/// A token's role is given as text or as {"content": text, ...}.
const std::string* find_role(const Json& json, std::string_view role) {
  const Json* token = json.find(role);
  if (!token) return nullptr;
  return token->is_string() ? &token->as_string() : &token->at("content").as_string();
}

/// Whether a TemplateProcessing's template for one text begins (ends) with this token.
bool has_token_at(const Json& processor, bool front, std::optional<int32_t> id, const Vocabulary& vocabulary) {
  const auto& items = processor.at("single").items();
  if (items.empty() || !id) return false;
  const Json* token = (front ? items.front() : items.back()).find("SpecialToken");
  return token && vocabulary.find(token->at("id").as_string()) == id;
}

}  // namespace

SpecialTokens SpecialTokens::read(const Json& config, const Json& special_map, const Vocabulary& vocabulary) {
  SpecialTokens special;
  for (const char* role : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const std::string* content = find_role(config, role);
    if (!content) content = find_role(special_map, role);
    if (!content) continue;
    const std::optional<int32_t> id = vocabulary.find(*content);
    const bool is_bos = role == std::string_view("bos_token"), is_eos = role == std::string_view("eos_token");
    if (!id && (is_bos || is_eos)) vocabulary.at(*content, fmt::format("\"{}\"", role));
    if (!id) continue;  // a padding token outside of the vocabulary does no harm: nothing here pads
    if (is_bos) special.bos = id;
    if (is_eos) special.eos = id;
    special.named.push_back({.content = *content, .id = *id, .special = true, .normalized = false});
  }
  return special;
}

void SpecialTokens::read_post_processor(const Json& tokenizer, const Json& config, const Vocabulary& vocabulary) {
  std::vector<const Json*> open;
  if (const Json* processor = tokenizer.find("post_processor")) open.push_back(processor);
  while (!open.empty()) {
    const Json& processor = *open.back();
    open.pop_back();
    const std::string& type = type_of(processor);
    if (type == "Sequence") {
      for (const Json& part : processor.at("processors").items()) open.push_back(&part);
    } else if (type == "TemplateProcessing") {
      add_bos |= has_token_at(processor, true, bos, vocabulary);
      add_eos |= has_token_at(processor, false, eos, vocabulary);
    } else if (type != "ByteLevel") {
      not_supported("post_processor", type, "Sequence, TemplateProcessing, ByteLevel");
    }
  }
  // The Llama and Gemma classes of `transformers` add BOS, and no EOS, whatever the template says.
  const std::string name = text_or(config, "tokenizer_class", "");
  for (const char* family : {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"}) {
    if (name == family || name == std::string(family) + "Fast") {
      add_bos = true;
      add_eos = false;
    }
  }
  add_bos = flag_or(config, "add_bos_token", add_bos) && bos;
  add_eos = flag_or(config, "add_eos_token", add_eos) && eos;
}

}  // namespace tessera::tokenizer
