// What surrounds a text has been said in three places over the years: by the post-processor of tokenizer.json, by keys
// of tokenizer_config.json, and by the tokenizer's class itself. Here one answer is chosen, and who would give another
// is named.

#include "data/tokenizer/post_processor.h"

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "data/tokenizer/component.h"

namespace tessera::tokenizer {
namespace {

/// The ids that a special token of a template stands for: the template's own table, else the vocabulary.
std::vector<int32_t> ids_of(const std::string& name, const Json& processor, const Vocabulary& vocabulary) {
  const Json* table = processor.find("special_tokens");
  const Json* entry = table ? table->find(name) : nullptr;
  if (!entry) return {vocabulary.at(name, "the template")};
  std::vector<int32_t> ids;
  for (const Json& id : entry->at("ids").items()) {
    if (!vocabulary.has(id.as_integer()))
      throw UserError("", fmt::format("the template's token \"{}\" has the id {}, which is not in the vocabulary", name,
                                      id.as_integer()));
    ids.push_back(static_cast<int32_t>(id.as_integer()));
  }
  return ids;
}

/// Puts a template for one text around what is there already.
void apply_template(const Json& processor, const Vocabulary& vocabulary, Surroundings& around) {
  const auto refuse = [] {
    throw UserError("", "the template \"single\" has the text not just once, or another text than \"A\"",
                    "a template of special tokens, the sequence \"A\" and special tokens is supported");
  };
  std::vector<int32_t> front, back;
  int texts = 0;
  for (const Json& item : processor.at("single").items()) {
    if (const Json* sequence = item.find("Sequence")) {
      if (sequence->at("id").as_string() != "A") refuse();
      ++texts;
      continue;
    }
    const std::vector<int32_t> ids = ids_of(item.at("SpecialToken").at("id").as_string(), processor, vocabulary);
    // What stands before the text goes in front, the rest behind it.
    std::vector<int32_t>& side = texts == 0 ? front : back;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (texts != 1) refuse();
  // Of several templates a later one goes around an earlier.
  around.front.insert(around.front.begin(), front.begin(), front.end());
  around.back.insert(around.back.end(), back.begin(), back.end());
}

void apply_processor(const Json& processor, const Vocabulary& vocabulary, Surroundings& around) {
  const std::string& type = type_of(processor);
  if (type == "Sequence") {
    for (const Json& part : processor.at("processors").items()) apply_processor(part, vocabulary, around);
  } else if (type == "TemplateProcessing") {
    apply_template(processor, vocabulary, around);
  } else if (type != "ByteLevel") {
    not_supported("post_processor", type, "Sequence, TemplateProcessing, ByteLevel");
  }
}

Surroundings of_bos_and_eos(const SpecialTokens& special, bool add_bos, bool add_eos) {
  Surroundings around;
  if (add_bos && special.bos) around.front.push_back(*special.bos);
  if (add_eos && special.eos) around.back.push_back(*special.eos);
  return around;
}

Surroundings of_keys(const Json& config, const SpecialTokens& special, bool otherwise_bos) {
  return of_bos_and_eos(special, flag_or(config, "add_bos_token", otherwise_bos),
                        flag_or(config, "add_eos_token", false));
}

/// Of the classes that replace the file's post-processor in version 4: whether they add BOS by default.
std::optional<bool> adds_bos_in_version_4(const std::string& class_name) {
  for (const char* name : {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"})
    if (class_name == name) return true;
  if (class_name == "GPTNeoXTokenizer") return false;
  return std::nullopt;
}

/// "<s> text </s>"
std::string picture(const Surroundings& around, const Vocabulary& vocabulary) {
  std::string text;
  for (const int32_t id : around.front) text += fmt::format("{} ", vocabulary.token(id));
  text += "text";
  for (const int32_t id : around.back) text += fmt::format(" {}", vocabulary.token(id));
  return text;
}

}  // namespace

/// Whether a key of the configuration says otherwise.
bool contradicts(const Json& config, const char* key, std::optional<int32_t> token, const std::vector<int32_t>& side) {
  const Json* told = config.find(key);
  return told && token && told->as_bool() != (std::find(side.begin(), side.end(), *token) != side.end());
}

Surroundings read_surroundings(const Json& tokenizer, const Json& config, const SpecialTokens& special,
                               const Vocabulary& vocabulary, std::string& notice) {
  Surroundings of_file;
  const Json* processor = tokenizer.find("post_processor");
  if (processor) apply_processor(*processor, vocabulary, of_file);
  const std::string class_name = tokenizer_class(config);
  const bool is_code_llama = class_name == "CodeLlamaTokenizer", is_neox = class_name == "GPTNeoXTokenizer";
  // What the two versions of the library would add; the file's word counts where neither class nor version overrides
  // it.
  const Surroundings version_5 = is_code_llama || is_neox ? of_bos_and_eos(special, is_code_llama, false) : of_file;
  const auto bos_in_4 = adds_bos_in_version_4(class_name);
  const Surroundings version_4 = bos_in_4 ? of_keys(config, special, *bos_in_4) : of_file;
  Surroundings chosen = processor ? version_5 : of_keys(config, special, is_code_llama);
  const bool is_against_keys = contradicts(config, "add_bos_token", special.bos, chosen.front) ||
                               contradicts(config, "add_eos_token", special.eos, chosen.back);
  if (version_4 != version_5 || is_against_keys) {
    const auto shown = [&](const Surroundings& around) { return picture(around, vocabulary); };
    notice = fmt::format("note: a text is read as \"{}\" with this tokenizer, ", shown(chosen));
    if (chosen == version_5)
      notice += "as transformers 5 does";
    else
      notice += fmt::format("as add_bos_token and add_eos_token say; transformers 5 reads \"{}\"", shown(version_5));
    if (version_4 != version_5) notice += fmt::format("; transformers 4 reads \"{}\"", shown(version_4));
    notice += fmt::format(" (tokenizer_class \"{}\", {} in tokenizer.json{})", class_name,
                          processor ? "a post_processor" : "no post_processor",
                          is_against_keys ? "; add_bos_token and add_eos_token are not followed" : "");
  }
  return chosen;
}

}  // namespace tessera::tokenizer
