#include "infer/journal/run_identity.h"

#include <bit>

#include "core/error.h"
#include "io/sha256.h"

namespace tessera {
namespace {

constexpr int kVersion = 1;

/// Hashes values one behind the other, each so that no two sequences of values have the same bytes.
class ValueHash {
 public:
  void add(uint64_t value) {
    std::array<std::byte, 8> bytes;
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i) & 0xFF);
    hash_.add(bytes);
  }
  void add(int64_t value) { add(static_cast<uint64_t>(value)); }
  void add(int value) { add(static_cast<uint64_t>(int64_t{value})); }
  void add(bool value) { add(uint64_t{value}); }
  void add(double value) { add(std::bit_cast<uint64_t>(value)); }
  void add(std::string_view text) {
    add(uint64_t{text.size()});
    hash_.add(std::as_bytes(std::span(text)));
  }
  void add(const std::vector<int32_t>& ids) {
    std::string bytes;
    bytes.reserve(4 * ids.size());
    for (const int32_t id : ids)
      for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(static_cast<uint32_t>(id) >> shift & 0xFF);
    add(std::string_view(bytes));
  }
  void add(const std::vector<std::string>& texts) {
    add(uint64_t{texts.size()});
    for (const std::string& text : texts) add(std::string_view(text));
  }
  std::string hex() { return hash_.hex(); }

 private:
  Sha256 hash_;
};

void add_sampling(ValueHash& hash, const Sampling& s) {
  for (const double value :
       {s.temperature, s.top_p, s.min_p, s.typical_p, s.repetition_penalty, s.presence_penalty, s.frequency_penalty})
    hash.add(value);
  for (const int64_t value : {s.top_k, s.no_repeat_ngram_size, s.min_tokens}) hash.add(value);
  hash.add(uint64_t{s.logit_bias.size()});
  for (const auto& [id, bias] : s.logit_bias) {
    hash.add(int64_t{id});
    hash.add(bias);
  }
  hash.add(s.allowed_token_ids.has_value());
  if (s.allowed_token_ids) hash.add(*s.allowed_token_ids);
  hash.add(uint64_t{s.bad_words.size()});
  for (const auto& word : s.bad_words) hash.add(word);
}

void add_request(ValueHash& hash, const Request& r) {
  for (const std::string& text : {r.custom_id, r.adapter, r.cache_salt}) hash.add(std::string_view(text));
  hash.add(r.prompt);
  add_sampling(hash, r.sampling);
  hash.add(r.beams.length_penalty);
  for (const int64_t value : {r.beams.width, static_cast<int64_t>(r.beams.early_stopping), r.activation_offset, r.n,
                              r.best_of, r.max_tokens, r.score_from.value_or(0), r.logprobs, r.prompt_logprobs})
    hash.add(value);
  hash.add(r.stop_ids);
  hash.add(r.stop);
  hash.add(r.include_stop_str_in_output);
  hash.add(r.skip_special_tokens);
  hash.add(r.seed);
}

void add_line(ValueHash& hash, const AskedLine& line) {
  hash.add(std::string_view(line.custom_id));
  hash.add(uint64_t{line.count});
  hash.add(std::string_view(line.example.prompt));
  hash.add(std::string_view(line.example.completion));
  hash.add(line.openai.has_value());
  if (!line.openai) return;
  hash.add(line.openai->is_chat);
  hash.add(line.openai->echo);
  hash.add(std::string_view(line.openai->model));
  hash.add(line.openai->texts);
}

Json to_json(const std::map<std::string, std::string>& values) {
  Json json = Json::object();
  for (const auto& [name, value] : values) json.set(name, value);
  return json;
}

std::map<std::string, std::string> texts_of(const Json& json) {
  std::map<std::string, std::string> texts;
  for (const auto& [name, value] : json.members()) texts[name] = value.as_string();
  return texts;
}

/// A hash by its first digits, another value as it is.
std::string told(const std::string& value) {
  constexpr size_t kHash = 64, kTold = 8;
  const bool is_hash = value.size() == kHash && value.find_first_not_of("0123456789abcdef") == std::string::npos;
  return is_hash ? value.substr(0, kTold) + ".." : value;
}

std::string changes(const std::string& part, const std::map<std::string, std::string>& before,
                    const std::map<std::string, std::string>& now) {
  std::map<std::string, std::pair<std::string, std::string>> all;
  for (const auto& [name, value] : before) all[name] = {told(value), "not there"};
  for (const auto& [name, value] : now) {
    const auto found = all.emplace(name, std::pair(std::string("not there"), std::string())).first;
    found->second.second = told(value);
  }
  std::string text;
  for (const auto& [name, values] : all)
    if (!before.contains(name) || !now.contains(name) || before.at(name) != now.at(name))
      text += fmt::format("{}{} was {}, now {}\n", part, name, values.first, values.second);
  return text;
}

}  // namespace

std::string batch_hash(const RequestFile& file) {
  ValueHash hash;
  hash.add(static_cast<int>(file.kind));
  hash.add(uint64_t{file.lines.size()});
  for (const AskedLine& line : file.lines) {
    add_line(hash, line);
    for (size_t i = line.first; i < line.first + line.count; ++i) add_request(hash, file.requests.at(i));
  }
  return hash.hex();
}

Json to_json(const RunIdentity& identity) {
  return Json::object()
      .set("batch", identity.batch)
      .set("model", to_json(identity.model))
      .set("adapters", to_json(identity.adapters))
      .set("options", to_json(identity.options))
      .set("requests", identity.requests);
}

RunIdentity run_identity_of(const Json& json) {
  return {.batch = json.at("batch").as_string(),
          .requests = json.at("requests").as_integer(),
          .model = texts_of(json.at("model")),
          .adapters = texts_of(json.at("adapters")),
          .options = texts_of(json.at("options"))};
}

std::string RunIdentity::hex() const {
  return sha256_hex(Json::object().set("version", kVersion).set("run", to_json(*this)).dump());
}

std::string identity_differences(const RunIdentity& before, const RunIdentity& now) {
  return changes("", {{"batch", before.batch}, {"requests", std::to_string(before.requests)}},
                 {{"batch", now.batch}, {"requests", std::to_string(now.requests)}}) +
         changes("model.", before.model, now.model) + changes("adapters.", before.adapters, now.adapters) +
         changes("options.", before.options, now.options);
}

}  // namespace tessera
