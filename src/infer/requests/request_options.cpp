//   members -> what each name means (aliases) -> read into a Request, over the defaults -> checked together

#include "infer/requests/request_options.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "core/error.h"
#include "data/encoding.h"
#include "infer/requests/request_limits.h"

namespace tessera {
namespace {

constexpr double kNoBound = std::numeric_limits<double>::max();
constexpr double kLargestBias = 1e6;  // beyond it the quotient by a small temperature may overflow

/// A line while its options are read.
struct Reading {
  const Tokenizer& tokenizer;
  const RequestDefaults& defaults;
  LineOptions line{};
  std::vector<int32_t> eos{}, stop_token_ids{};
  bool ignore_eos = false;
  std::optional<bool> do_sample{};

  int64_t vocab() const { return defaults.vocab_size; }
  Request& request() { return line.request; }
  Sampling& sampling() { return line.request.sampling; }
  bool says(std::string_view name) const { return line.said.contains(name); }
};

std::vector<std::pair<int32_t, double>> biases_of(const NamedValue& value, int64_t vocab) {
  const std::string expected = fmt::format("an object of token ids from 0 to {} with their biases", vocab - 1);
  if (!value.value->is_object()) value.refuse(expected);
  std::map<int32_t, double> biases;
  for (const auto& [key, bias] : value.value->members()) {
    int32_t id = -1;
    const auto [end, fault] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (fault != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocab)
      throw UserError("", fmt::format("\"{}\" has the key \"{}\", expected {}", value.name, key, expected));
    if (!biases.emplace(id, NamedValue{value.name + "." + key, &bias}.number(-kLargestBias, kLargestBias)).second)
      throw UserError("", fmt::format("\"{}\" has the token id {} twice", value.name, id));
  }
  return {biases.begin(), biases.end()};
}

/// The tokens of a text behind other text; empty where the tokenizer has none for it.
std::vector<int32_t> spelling_of(const std::string& text, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = encode_continuation(tokenizer, text, Tokenizer::Special::parse);
  const auto unknown = tokenizer.unknown();
  if (unknown && std::ranges::find(ids, *unknown) != ids.end()) ids.clear();
  return ids;
}

/// Each word as it is spelled with a leading space and without one.
std::vector<std::vector<int32_t>> bad_words_of(const NamedValue& value, const Tokenizer& tokenizer) {
  std::vector<std::vector<int32_t>> spellings;
  for (const std::string& text : value.texts()) {
    const std::string word = text.substr(std::min(text.find_first_not_of(' '), text.size()));
    bool is_spelled = false;
    for (const std::string& each : {word, " " + word}) {
      std::vector<int32_t> ids = spelling_of(each, tokenizer);
      is_spelled = is_spelled || !ids.empty();
      if (!ids.empty() && std::ranges::find(spellings, ids) == spellings.end()) spellings.push_back(std::move(ids));
    }
    if (!is_spelled)
      throw UserError("", fmt::format("\"{}\" has \"{}\", for which the tokenizer has no tokens", value.name, text));
  }
  return spellings;
}

EarlyStopping early_stopping_of(const NamedValue& value) {
  if (value.value->is_bool()) return value.value->as_bool() ? EarlyStopping::yes : EarlyStopping::no;
  if (!value.value->is_string() || value.value->as_string() != "never") value.refuse("true, false or \"never\"");
  return EarlyStopping::never;
}

std::string adapter_of(const NamedValue& value, const RequestDefaults& defaults) {
  const std::string& name = value.text();
  if (name == "base" || defaults.adapters.contains(name)) return name;
  std::string known = "base";
  for (const std::string& each : defaults.adapters) known += ", " + each;
  throw UserError("", fmt::format("the adapter \"{}\" is unknown", name), "known ones: " + known);
}

std::vector<int32_t> allowed_of(const NamedValue& value, int64_t vocab) {
  std::vector<int32_t> ids = value.ids(vocab);
  if (ids.empty()) throw UserError("", fmt::format("\"{}\" is empty: no token is allowed", value.name));
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

struct Option {
  const char* name;
  void (*read)(const NamedValue&, Reading&);
  const char* means = nullptr;        // the option whose other name it is
  const char* translation = nullptr;  // what is told of a name that is not ours
};

using Value = const NamedValue&;
constexpr Option kOptions[] = {
    {"n", [](Value v, Reading& r) { r.request().n = v.whole(1, kMostSamples); }},
    {"num_return_sequences", nullptr, "n", "is read as \"n\""},
    {"best_of", [](Value v, Reading& r) { r.request().best_of = v.whole(1, kMostSamples); }},
    {"temperature", [](Value v, Reading& r) { r.sampling().temperature = v.number(0, kNoBound); }},
    {"do_sample", [](Value v, Reading& r) { r.do_sample = v.truth(); }, nullptr,
     "is read as temperature 0 where it is false, and as temperature 1 where it is true and none is given"},
    {"top_p", [](Value v, Reading& r) { r.sampling().top_p = v.number(0, 1); }},
    {"top_k", [](Value v, Reading& r) { r.sampling().top_k = v.whole(-1, INT64_MAX); }},
    {"min_p", [](Value v, Reading& r) { r.sampling().min_p = v.number(0, 1); }},
    {"typical_p", [](Value v, Reading& r) { r.sampling().typical_p = v.positive(1); }},
    {"repetition_penalty",
     [](Value v, Reading& r) { r.sampling().repetition_penalty = v.number(kSmallestRepetition, kLargestRepetition); }},
    {"presence_penalty",
     [](Value v, Reading& r) { r.sampling().presence_penalty = v.number(-kLargestPenalty, kLargestPenalty); }},
    {"frequency_penalty",
     [](Value v, Reading& r) { r.sampling().frequency_penalty = v.number(-kLargestPenalty, kLargestPenalty); }},
    {"no_repeat_ngram_size",
     [](Value v, Reading& r) { r.sampling().no_repeat_ngram_size = v.whole(0, kLongestNgram); }},
    {"logit_bias", [](Value v, Reading& r) { r.sampling().logit_bias = biases_of(v, r.vocab()); }},
    {"allowed_token_ids", [](Value v, Reading& r) { r.sampling().allowed_token_ids = allowed_of(v, r.vocab()); }},
    {"bad_words", [](Value v, Reading& r) { r.sampling().bad_words = bad_words_of(v, r.tokenizer); }},
    {"num_beams", [](Value v, Reading& r) { r.request().beams.width = v.whole(1, kMostBeams); }},
    {"length_penalty",
     [](Value v, Reading& r) {
       r.request().beams.length_penalty = v.number(-kLargestLengthPower, kLargestLengthPower);
     }},
    {"early_stopping", [](Value v, Reading& r) { r.request().beams.early_stopping = early_stopping_of(v); }},
    {"max_tokens", [](Value v, Reading& r) { r.request().max_tokens = v.whole(0, kMostNewTokens); }},
    {"max_new_tokens", nullptr, "max_tokens"},
    {"min_tokens", [](Value v, Reading& r) { r.sampling().min_tokens = v.whole(0, kMostNewTokens); }},
    {"stop", [](Value v, Reading& r) { r.request().stop = v.texts(); }},
    {"stop_token_ids", [](Value v, Reading& r) { r.stop_token_ids = v.ids(r.vocab()); }},
    {"include_stop_str_in_output", [](Value v, Reading& r) { r.request().include_stop_str_in_output = v.truth(); }},
    {"skip_special_tokens", [](Value v, Reading& r) { r.request().skip_special_tokens = v.truth(); }},
    {"ignore_eos", [](Value v, Reading& r) { r.ignore_eos = v.truth(); }},
    {"eos_token_id", [](Value v, Reading& r) { r.eos = v.id_or_ids(r.vocab()); }, nullptr,
     "takes the place of the model's own ends of a text"},
    {"pad_token_id", [](Value v, Reading& r) { v.whole(-1, r.vocab() - 1); }, nullptr,
     "has no effect: nothing is padded"},
    {"seed", [](Value v, Reading& r) { r.line.seed = static_cast<uint64_t>(v.whole(0, INT64_MAX)); }},
    {"logprobs", [](Value v, Reading& r) { r.request().logprobs = v.whole(-1, kMostLogprobs); }},
    {"prompt_logprobs", [](Value v, Reading& r) { r.request().prompt_logprobs = v.whole(-1, kMostLogprobs); }},
    {"truncate_prompt_tokens", [](Value v, Reading& r) { r.line.truncate_prompt_tokens = v.whole(1, INT64_MAX); }},
    {"adapter", [](Value v, Reading& r) { r.request().adapter = adapter_of(v, r.defaults); }},
    {"activation_offset", [](Value v, Reading& r) { r.request().activation_offset = v.whole(0, INT64_MAX); }},
    {"score_from", [](Value v, Reading& r) { r.request().score_from = v.whole(1, INT64_MAX); }},
    {"cache_salt", [](Value v, Reading& r) { r.request().cache_salt = v.text(); }},
};

const Option* find_option(std::string_view name) {
  const auto* found = std::ranges::find(kOptions, name, [](const Option& o) { return std::string_view(o.name); });
  return found == std::end(kOptions) ? nullptr : found;
}

[[noreturn]] void refuse_unknown(const std::string& name, const std::vector<std::string>& others) {
  std::vector<std::string> known = option_names();
  known.insert(known.end(), others.begin(), others.end());
  const std::string near = nearest_name(name, known);
  throw UserError("", fmt::format("the name \"{}\" is unknown", name),
                  near.empty() ? "" : fmt::format("did you mean \"{}\"?", near));
}

/// Each option once, under what its name means.
std::map<std::string, NamedValue> meant(const std::vector<NamedValue>& members, const std::vector<std::string>& others,
                                        std::set<std::string>& told_names) {
  std::map<std::string, NamedValue> options;
  for (const NamedValue& member : members) {
    const Option* option = find_option(member.name);
    if (!option) refuse_unknown(member.name, others);
    if (member.value->is_null()) continue;
    if (option->translation) told_names.insert(option->name);
    const auto [found, is_new] = options.emplace(option->means ? option->means : option->name, member);
    if (!is_new && found->second.value->dump() != member.value->dump())
      throw UserError("",
                      fmt::format("\"{}\" and \"{}\" are two names of one option and differ: {} and {}",
                                  found->second.name, member.name, found->second.value->dump(), member.value->dump()),
                      "leave one of them out");
  }
  return options;
}

/// do_sample is HF's switch between the most likely token and draws.
void apply_do_sample(Reading& r) {
  if (!r.do_sample) return;
  double& temperature = r.sampling().temperature;
  const bool says = r.says("temperature");
  if (says && *r.do_sample != (temperature > 0))
    throw UserError("",
                    fmt::format("\"do_sample\" is {} and \"temperature\" {}: one takes the most likely token, the "
                                "other draws",
                                *r.do_sample, temperature),
                    "leave one of them out");
  if (!*r.do_sample)
    temperature = 0;
  else if (temperature == 0)
    temperature = 1;
}

void check_counts(Reading& r) {
  Request& request = r.request();
  if (request.best_of == 0) request.best_of = request.n;
  if (request.best_of < request.n)
    throw UserError("", fmt::format("\"best_of\" is {}{} and \"n\" {}: best_of is at least n", request.best_of,
                                    r.says("best_of") ? "" : " by generate.best_of", request.n));
  if (request.max_tokens > 0 && request.sampling.min_tokens > request.max_tokens)
    throw UserError("", fmt::format("\"min_tokens\" is {} and \"max_tokens\" {}: there can be no more tokens than that",
                                    request.sampling.min_tokens, request.max_tokens));
}

void check_beams(const Request& request) {
  if (request.beams.width == 1) return;
  if (request.sampling.temperature > 0)
    throw UserError("",
                    fmt::format("\"num_beams\" is {} and \"temperature\" {}: beams are searched without draws",
                                request.beams.width, request.sampling.temperature),
                    "set temperature to 0, or num_beams to 1");
  if (request.best_of > request.n)
    throw UserError("", "\"num_beams\" and \"best_of\" do not go together", "n of the beams are answered");
  if (request.n > request.beams.width)
    throw UserError("", fmt::format("\"n\" is {} and \"num_beams\" {}: there are no more answers than beams", request.n,
                                    request.beams.width));
}

/// Scores only: a request without new tokens has nothing to draw.
void check_scores(const Request& request) {
  if (request.max_tokens > 0) {
    if (request.score_from)
      throw UserError("", fmt::format("\"score_from\" goes with \"max_tokens\" 0, which is {}", request.max_tokens),
                      "to have the prompt's tokens told beside new ones, set prompt_logprobs");
    return;
  }
  if (request.n > 1 || request.best_of > 1 || request.beams.width > 1)
    throw UserError("", "\"max_tokens\" is 0, which scores the prompt: n, best_of and num_beams are 1 then");
}

void check_allowed(const Request& request, int64_t vocab) {
  std::set<int32_t> banned;
  for (const auto& word : request.sampling.bad_words)
    if (word.size() == 1) banned.insert(word[0]);
  if (request.sampling.min_tokens > 0) banned.insert(request.stop_ids.begin(), request.stop_ids.end());
  const auto& allowed = request.sampling.allowed_token_ids;
  const auto is_banned = [&](int32_t id) { return banned.contains(id); };
  if (allowed ? std::ranges::all_of(*allowed, is_banned) : std::ssize(banned) >= vocab)
    throw UserError("", "no token is allowed: bad_words and min_tokens ban all of them");
}

}  // namespace

const std::vector<std::string>& option_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Option& option : kOptions) all.emplace_back(option.name);
    return all;
  }();
  return names;
}

std::string translation_of(const std::string& name) {
  const Option* option = find_option(name);
  TS_CHECK(option && option->translation, "\"{}\" is a name of ours", name);
  return option->translation;
}

LineOptions read_options(const std::vector<NamedValue>& members, const std::vector<std::string>& others,
                         const RequestDefaults& defaults, const Tokenizer& tokenizer,
                         std::set<std::string>& told_names) {
  Reading reading{.tokenizer = tokenizer, .defaults = defaults};
  reading.line.request = defaults.request;
  reading.eos = defaults.eos;
  reading.ignore_eos = defaults.ignore_eos;
  for (const auto& [name, value] : meant(members, others, told_names)) {
    reading.line.said.insert(name);
    find_option(name)->read(value, reading);
  }
  apply_do_sample(reading);
  Request& request = reading.request();
  if (!reading.ignore_eos)
    reading.stop_token_ids.insert(reading.stop_token_ids.end(), reading.eos.begin(), reading.eos.end());
  std::ranges::sort(reading.stop_token_ids);
  request.stop_ids = {reading.stop_token_ids.begin(),
                      std::unique(reading.stop_token_ids.begin(), reading.stop_token_ids.end())};
  check_counts(reading);
  check_beams(request);
  check_scores(request);
  if (request.max_tokens > 0) check_allowed(request, defaults.vocab_size);
  return std::move(reading.line);
}

}  // namespace tessera
