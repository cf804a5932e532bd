#include "data/tokenizer/special_tokens.h"

#include <algorithm>

#include "core/error.h"
#include "data/tokenizer/component.h"

namespace tessera::tokenizer {
namespace {

/// The tokens that the classes of `transformers` mean where no file names others.
struct ClassDefaults {
  const char *name, *bos, *eos, *unknown;
};
constexpr ClassDefaults kDefaults[] = {
    {"LlamaTokenizer", "<s>", "</s>", "<unk>"},
    {"CodeLlamaTokenizer", "<s>", "</s>", "<unk>"},
    {"GemmaTokenizer", "<bos>", "<eos>", "<unk>"},
    {"CohereTokenizer", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<UNK>"},
    {"GPT2Tokenizer", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"},
    {"GPTNeoXTokenizer", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"},
    {"Qwen2Tokenizer", nullptr, "<|endoftext|>", "<|endoftext|>"},
};

const char* class_default(const std::string& class_name, std::string_view role) {
  for (const ClassDefaults& each : kDefaults) {
    if (class_name != each.name) continue;
    if (role == "bos_token") return each.bos;
    if (role == "eos_token") return each.eos;
    if (role == "unk_token") return each.unknown;
  }
  return nullptr;
}

/// A token's role is given as text or as {"content": text, ...}; nullptr for anything else under such a name.
const std::string* content_of(const Json& token) {
  if (token.is_string()) return &token.as_string();
  const Json* content = token.find("content");
  return content ? &content->as_string() : nullptr;
}

/// The member itself, which may be null: a class's default is then not meant.
const Json* find_member(const Json& json, std::string_view key) {
  if (!json.is_object()) return nullptr;
  for (const auto& [name, value] : json.members())
    if (name == key) return &value;
  return nullptr;
}

/// What the files say of a role; nullptr when they do not name it.
const Json* find_role(const Json& config, const Json& special_map, std::string_view role) {
  // Files that list their added tokens are of a newer kind, whose configuration comes first.
  const bool is_legacy = !config.find("added_tokens_decoder");
  const Json* first = find_member(is_legacy ? special_map : config, role);
  return first ? first : find_member(is_legacy ? config : special_map, role);
}

bool is_role(std::string_view key) { return key.size() > 6 && key.substr(key.size() - 6) == "_token"; }

/// The keys "..._token" of both files, and the roles that a class may know by itself.
std::vector<std::string> all_roles(const Json& config, const Json& special_map) {
  std::vector<std::string> roles = {"bos_token", "eos_token", "unk_token"};
  for (const Json* json : {&config, &special_map}) {
    if (!json->is_object()) continue;
    for (const auto& [key, value] : json->members())
      if (is_role(key) && std::find(roles.begin(), roles.end(), key) == roles.end()) roles.push_back(key);
  }
  return roles;
}

/// Tokens without a role of their own: lists, or objects whose values they are.
void read_further(const Json& json, const Vocabulary& vocabulary, std::vector<AddedToken>& named) {
  const auto add = [&](const Json& token) {
    const std::string* content = content_of(token);
    const auto id = content ? vocabulary.find(*content) : std::nullopt;
    if (id) named.push_back({.content = *content, .id = *id, .special = true, .normalized = false});
  };
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const Json* tokens = json.find(key);
    if (tokens && tokens->is_array()) std::for_each(tokens->items().begin(), tokens->items().end(), add);
    if (tokens && tokens->is_object())
      for (const auto& [name, token] : tokens->members()) add(token);
  }
}

}  // namespace

SpecialTokens SpecialTokens::read(const Json& config, const Json& special_map, const Vocabulary& vocabulary) {
  SpecialTokens special;
  const std::string class_name = tokenizer_class(config);
  for (const std::string& role : all_roles(config, special_map)) {
    const bool is_bos = role == "bos_token", is_eos = role == "eos_token";
    const Json* told = find_role(config, special_map, role);
    const std::string* content = told ? content_of(*told) : nullptr;
    const char* usual = told ? nullptr : class_default(class_name, role);
    if (!content && !usual) continue;
    const std::string token = content ? *content : usual;
    const std::optional<int32_t> id = vocabulary.find(token);
    // Throws, naming the role: without its BOS or EOS a model reads texts that it was not trained on.
    if (!id && content && (is_bos || is_eos)) vocabulary.at(token, fmt::format("\"{}\"", role));
    if (!id) continue;  // a padding token outside of the vocabulary does no harm: nothing here pads
    if (is_bos) special.bos = id;
    if (is_eos) special.eos = id;
    special.named.push_back({.content = token, .id = *id, .special = true, .normalized = false});
  }
  read_further(config, vocabulary, special.named);
  read_further(special_map, vocabulary, special.named);
  return special;
}

std::string tokenizer_class(const Json& config) {
  std::string name = text_or(config, "tokenizer_class", "");
  if (name.size() > 4 && name.compare(name.size() - 4, 4, "Fast") == 0) name.resize(name.size() - 4);
  return name;
}

}  // namespace tessera::tokenizer
