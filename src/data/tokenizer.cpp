// Only puts the parts together: each part of tokenizer.json has a file in tokenizer/. The texts between added tokens go
// through normalizer, pre-tokenizer and model; added tokens are ids at once.

#include "data/tokenizer.h"

#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "core/json.h"
#include "core/random.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/component.h"
#include "data/tokenizer/decoder.h"
#include "data/tokenizer/model.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/post_processor.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/special_tokens.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/vocabulary.h"
#include "io/files.h"
#include "io/hub_cache.h"
#include "io/json_file.h"
#include "io/links.h"

namespace tessera {

using namespace tokenizer;
namespace fs = std::filesystem;

struct Tokenizer::Parts {
  Vocabulary vocabulary;  // the model's and the added tokens
  std::unique_ptr<Normalizer> normalizer;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  std::unique_ptr<Model> model;
  std::unique_ptr<Decoder> decoder;
  TokenFinder raw_finder, normalized_finder;  // added tokens to look for before and after the normalizer
  HiddenTokens is_special;                    // [ids]
  SpecialTokens special;
  Surroundings around;
  std::optional<int32_t> unknown;
  std::string chat_template, notice;
  uint64_t fingerprint = 0;

  std::string normalize(std::string_view text) const {
    return normalizer ? normalizer->apply(std::string(text)) : std::string(text);
  }
  void add_tokens(std::vector<AddedToken> added);
  void encode_words(std::string_view text, bool at_start, bool parse, std::vector<int32_t>& ids) const;
};

namespace {

/// Runs `read` and says in which part of which file its complaint arose.
template <class Read> auto in_part(const fs::path& file, std::string_view part, const Read& read) {
  try {
    return read();
  } catch (const UserError& error) {
    if (!error.where().empty()) throw;
    throw UserError(fmt::format("{}: {}", file.string(), part), error.message(), error.hint());
  }
}

/// A file of the folder, its text and its JSON.
struct Document {
  fs::path path;
  std::string text;
  Json json;

  static Document read(const fs::path& path) {
    Document document{path, read_text_file(path), {}};
    document.json = parse_configuration(document.text, path.string());
    if (!document.json.is_object()) throw UserError(path.string(), "expected a JSON object");
    return document;
  }
  static Document read_if_there(const fs::path& path) {
    require_sound_link(path);
    return fs::exists(path) ? read(path) : Document{path, {}, {}};
  }
};

/// Those of tokenizer.json, with the flags that tokenizer_config.json gives them, and those that only the latter lists.
std::vector<AddedToken> read_added_tokens(const Document& tokenizer, const Document& config) {
  std::vector<AddedToken> tokens;
  in_part(tokenizer.path, "added_tokens", [&] {
    if (const Json* list = tokenizer.json.find("added_tokens")) {
      for (const Json& json : list->items()) {
        tokens.push_back(AddedToken::read(json));
        tokens.back().id = json.at("id").as_integer();
      }
    }
  });
  in_part(config.path, "added_tokens_decoder", [&] {
    const Json* table = config.json.find("added_tokens_decoder");
    if (!table) return;
    std::unordered_map<std::string, size_t> known;
    for (size_t i = 0; i < tokens.size(); ++i) known.emplace(tokens[i].content, i);
    for (const auto& [id, json] : table->members()) {
      AddedToken token = AddedToken::read(json);
      // Nine digits fit an int, and no vocabulary is larger.
      if (id.empty() || id.size() > 9 || id.find_first_not_of("0123456789") != std::string::npos) {
        throw UserError("", fmt::format("expected an id as key, found \"{}\"", id));
      }
      const auto [place, is_new] = known.emplace(token.content, tokens.size());
      // tokenizer.json decides on ids; tokenizer_config.json adds flags, and tokens that only it lists.
      token.id = is_new ? std::stoll(id) : tokens[place->second].id;
      if (is_new) tokens.emplace_back();
      tokens[place->second] = std::move(token);
    }
  });
  return tokens;
}

/// A chat template is text, or a list of named ones, or a file of its own.
std::string read_chat_template(const fs::path& folder, const Document& config) {
  const fs::path own_file = folder / "chat_template.jinja";
  if (fs::exists(own_file)) return read_text_file(own_file);
  const Json* json = config.json.find("chat_template");
  if (!json) return {};
  if (json->is_string()) return json->as_string();
  for (const Json& named : json->items())
    if (text_or(named, "name", "") == "default") return named.at("template").as_string();
  return {};
}

template <class Make> auto make_if_there(const Document& document, const char* part, const Make& make) {
  return in_part(document.path, part, [&] {
    const Json* json = document.json.find(part);
    return json ? make(*json) : nullptr;
  });
}

/// Whether a component, or one of the sequence that it is, is of this type and such that `is_meant`.
template <class Test> bool has_component(const Json* json, const char* type, const Test& is_meant) {
  if (!json) return false;
  if (type_of(*json) == type) return is_meant(*json);
  for (const char* list : {"normalizers", "pretokenizers"})
    if (const Json* parts = json->find(list))
      for (const Json& part : parts->items())
        if (has_component(&part, type, is_meant)) return true;
  return false;
}

/// Metaspace's scheme "first" asks where a word stood before the normalizer, which is not known here once it takes the
/// beginning away.
void refuse_shifted_start(const Json& tokenizer) {
  const Json* normalizer = tokenizer.find("normalizer");
  const bool asks = has_component(tokenizer.find("pre_tokenizer"), "Metaspace",
                                  [](const Json& json) { return text_or(json, "prepend_scheme", "") == "first"; });
  const bool strips =
      has_component(normalizer, "Strip", [](const Json& json) { return flag_or(json, "strip_left", true); });
  const bool replaces = has_component(normalizer, "Replace", [](const Json& json) {
    return text_or(json, "content", "").empty() || json.at("pattern").find("Regex");
  });
  const auto has = [&](const char* type) { return has_component(normalizer, type, [](const Json&) { return true; }); };
  const Json* steps = asks ? tokenizer.at("pre_tokenizer").find("pretokenizers") : nullptr;
  const bool is_behind = steps && type_of(steps->items().front()) != "Metaspace";
  if (asks && normalizer && (strips || replaces || has("Prepend") || is_behind))
    throw UserError("",
                    "Metaspace with the prepend_scheme \"first\" is not supported behind a normalizer that changes the "
                    "text's beginning");
}

/// Some classes of `transformers` go by a key that the file may contradict.
std::string prefix_space_notice(const Json& tokenizer, const Json& config) {
  const Json* key = config.find("add_prefix_space");
  if (!key || !key->is_bool()) return "";
  const bool differs = has_component(tokenizer.find("pre_tokenizer"), "ByteLevel", [&](const Json& json) {
    return flag_or(json, "add_prefix_space", true) != key->as_bool();
  });
  if (!differs) return "";
  return fmt::format(
      "note: add_prefix_space is {} in tokenizer_config.json and {} in the pre_tokenizer of tokenizer.json, which is "
      "followed",
      key->as_bool(), !key->as_bool());
}

}  // namespace

Tokenizer Tokenizer::load(const fs::path& folder) {
  const fs::path path = folder / "tokenizer.json";
  require_sound_link(path);
  if (!fs::exists(path)) {
    // Of a cache, a snapshot without either was not downloaded whole.
    const bool is_part = !hub_name_of(folder).empty() && !fs::exists(folder / "tokenizer.model");
    throw UserError(
        folder.string(), "there is no tokenizer.json",
        is_part
            ? "not all of the model was downloaded: " + download_again(folder)
            : "set model.tokenizer to the folder that has it; one with only a SentencePiece tokenizer.model has to be converted first");
  }
  const Document document = Document::read(path);
  const Document config = Document::read_if_there(folder / "tokenizer_config.json");
  const Document special_map = Document::read_if_there(folder / "special_tokens_map.json");

  auto parts = std::make_unique<Parts>();
  parts->normalizer = make_if_there(document, "normalizer", make_normalizer);
  parts->pre_tokenizer = make_if_there(document, "pre_tokenizer", make_pre_tokenizer);
  parts->decoder = make_if_there(document, "decoder", make_decoder);
  in_part(path, "pre_tokenizer", [&] { refuse_shifted_start(document.json); });
  in_part(path, "model", [&] {
    const Json& model = document.json.at("model");
    parts->vocabulary = Vocabulary(model.at("vocab"));
    parts->model = make_model(model, parts->vocabulary);
    if (const Json* unknown = model.find("unk_token")) parts->unknown = parts->vocabulary.find(unknown->as_string());
  });

  std::vector<AddedToken> added = read_added_tokens(document, config);
  in_part(path, "added_tokens", [&] {
    for (const AddedToken& token : added) parts->vocabulary.add(token.content, token.id);
  });
  parts->special = in_part(config.path, "special tokens",
                           [&] { return SpecialTokens::read(config.json, special_map.json, parts->vocabulary); });
  parts->around = in_part(path, "post_processor", [&] {
    return read_surroundings(document.json, config.json, parts->special, parts->vocabulary, parts->notice);
  });
  if (const std::string notice = prefix_space_notice(document.json, config.json); !notice.empty())
    parts->notice += (parts->notice.empty() ? "" : "\n") + notice;
  in_part(path, "added_tokens", [&] { parts->add_tokens(std::move(added)); });
  parts->chat_template = in_part(config.path, "chat_template", [&] { return read_chat_template(folder, config); });
  // All bytes of all files that decide: a cache of prepared tokens goes by this number.
  for (const std::string_view text :
       std::initializer_list<std::string_view>{document.text, config.text, special_map.text, parts->chat_template}) {
    parts->fingerprint = hash_key({parts->fingerprint, fnv1a(text.data(), text.size())});
  }
  return Tokenizer(std::move(parts));
}

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

/// @param added  the files' added tokens; a token with a role is one too
void Tokenizer::Parts::add_tokens(std::vector<AddedToken> added) {
  for (const AddedToken& named : special.named) {
    const auto known =
        std::find_if(added.begin(), added.end(), [&](const AddedToken& a) { return a.content == named.content; });
    if (known == added.end())
      added.push_back(named);
    else
      known->special = true;
  }
  is_special.assign(static_cast<size_t>(vocabulary.size()), false);
  for (const AddedToken& token : added) {
    if (token.special) is_special[static_cast<size_t>(token.id)] = true;
    // Text has gone through the normalizer where such a token is looked for, so its content has to as well.
    const std::string content = token.normalized ? normalize(token.content) : token.content;
    if (content.empty() && !token.content.empty())
      throw UserError("", fmt::format("the normalizer leaves nothing of the token \"{}\"", token.content),
                      "set its \"normalized\" to false");
    (token.normalized ? normalized_finder : raw_finder).add(content, token);
  }
}

void Tokenizer::Parts::encode_words(std::string_view text, bool at_start, bool parse, std::vector<int32_t>& ids) const {
  static const HiddenTokens kNone;
  Words words{std::string(text), {{0, text.size()}}, at_start};
  if (pre_tokenizer) pre_tokenizer->apply(words);
  std::vector<std::string_view> list;
  list.reserve(words.ranges.size());
  for (const Range& range : words.ranges) list.push_back(words.word(range));
  model->tokenize(list, parse ? kNone : is_special, ids);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, Special special) const {
  const bool parse = special == Special::parse;
  std::string valid;
  if (!is_valid_utf8(text)) text = valid = replace_invalid_utf8(text);
  // Two rounds of cutting: tokens that are looked for in the raw text come first, then the rest is normalized and
  // searched for the others.
  std::vector<int32_t> ids;
  for (const Section& raw : parts_->raw_finder.cut(text, parse)) {
    if (raw.id >= 0) {
      ids.push_back(raw.id);
      continue;
    }
    const std::string normalized = parts_->normalize(raw.text);
    for (const Section& section : parts_->normalized_finder.cut(normalized, parse)) {
      // Both cuts begin with this section: nothing stands before it in the whole text.
      const bool at_start = raw.text.data() == text.data() && section.text.data() == normalized.data();
      if (section.id >= 0)
        ids.push_back(section.id);
      else
        parts_->encode_words(section.text, at_start, parse, ids);
    }
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<std::string> pieces;
  pieces.reserve(ids.size());
  for (const int32_t id : ids) {
    const bool skip = !parts_->vocabulary.has(id) || (skip_special && parts_->is_special[id]);
    if (!skip) pieces.emplace_back(parts_->vocabulary.token(id));
  }
  std::string text;
  if (parts_->decoder) {
    for (const std::string& piece : parts_->decoder->apply(std::move(pieces))) text += piece;
  } else {  // words, as Hugging Face has it
    for (size_t i = 0; i < pieces.size(); ++i) text += (i ? " " : "") + pieces[i];
  }
  return text;
}

std::string Tokenizer::decode_after(std::span<const int32_t> before, std::span<const int32_t> ids,
                                    bool skip_special) const {
  std::vector<int32_t> all(before.begin(), before.end());
  all.insert(all.end(), ids.begin(), ids.end());
  // A token may change how those before it read (a byte of a character, a stripped space): only a common beginning
  // tells what was added.
  const std::string front = decode(before, skip_special), whole = decode(all, skip_special);
  return whole.compare(0, front.size(), front) == 0 ? whole.substr(front.size()) : decode(ids, skip_special);
}

int32_t Tokenizer::vocab_size() const { return parts_->vocabulary.size(); }
std::optional<int32_t> Tokenizer::bos() const { return parts_->special.bos; }
std::optional<int32_t> Tokenizer::eos() const { return parts_->special.eos; }
std::optional<int32_t> Tokenizer::unknown() const { return parts_->unknown; }
std::span<const int32_t> Tokenizer::front() const { return parts_->around.front; }
std::span<const int32_t> Tokenizer::back() const { return parts_->around.back; }
bool Tokenizer::add_bos() const { return bos() && std::find(front().begin(), front().end(), *bos()) != front().end(); }
bool Tokenizer::add_eos() const { return eos() && std::find(back().begin(), back().end(), *eos()) != back().end(); }
const std::string& Tokenizer::notice() const { return parts_->notice; }
std::optional<int32_t> Tokenizer::token_id(std::string_view token) const { return parts_->vocabulary.find(token); }
std::string_view Tokenizer::token(int32_t id) const { return parts_->vocabulary.token(id); }
uint64_t Tokenizer::fingerprint() const { return parts_->fingerprint; }
const std::string& Tokenizer::chat_template() const { return parts_->chat_template; }

}  // namespace tessera
