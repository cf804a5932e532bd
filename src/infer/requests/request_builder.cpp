#include "infer/requests/request_builder.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"
#include "data/encoding.h"
#include "infer/draws.h"

namespace tessera {
namespace {

void check_ids(const std::vector<int32_t>& prompt, const Tokenizer& tokenizer, int64_t vocab) {
  const auto wrong = std::ranges::find_if(prompt, [&](int32_t id) { return id < 0 || id >= vocab; });
  if (wrong == prompt.end()) return;
  throw UserError("", fmt::format("the prompt has the token id {} (\"{}\"), and the model's vocabulary has ids from 0 "
                                  "to {}",
                                  *wrong, tokenizer.token(*wrong), vocab - 1));
}

void check_length(const Request& request, int64_t max_position) {
  const auto tokens = std::ssize(request.prompt);
  const int64_t most = max_position - (request.max_tokens > 0);  // a new token has a position behind the prompt
  if (max_position == 0 || tokens <= most) return;
  throw UserError("",
                  fmt::format("the prompt has {} tokens, and the context {}{}", tokens, max_position,
                              request.max_tokens > 0 ? ", one of which is a new token's" : ""),
                  "shorten it, or set truncate_prompt_tokens: so many of its last tokens stay");
}

void check_scores(Request& request) {
  if (request.max_tokens > 0) return;
  const auto tokens = std::ssize(request.prompt);
  if (tokens < 2)
    throw UserError("",
                    "\"max_tokens\" is 0, which scores the prompt: its first token has none before it, and there "
                    "is no other");
  if (!request.score_from) request.score_from = 1;
  if (*request.score_from >= tokens)
    throw UserError("", fmt::format("\"score_from\" is {}, expected a whole number from 1 to {}: the prompt has {} "
                                    "tokens",
                                    *request.score_from, tokens - 1, tokens));
}

void check_offset(const Request& request) {
  if (request.activation_offset > std::ssize(request.prompt))
    throw UserError("", fmt::format("\"activation_offset\" is {}, and the prompt has {} tokens",
                                    request.activation_offset, request.prompt.size()));
}

void require_new(std::set<std::string>& ids, const std::string& custom_id) {
  if (!custom_id.empty() && !ids.insert(custom_id).second)
    throw UserError("", fmt::format("the custom_id \"{}\" is there twice", custom_id), "give each request its own");
}

}  // namespace

RequestBuilder::RequestBuilder(const DataConfig& config, const Tokenizer& tokenizer, const RequestDefaults& defaults,
                               RequestFile& file)
    : config_(config), tokenizer_(tokenizer), defaults_(defaults), file_(file) {
  TS_CHECK(defaults.vocab_size > 0, "the vocabulary has {} ids", defaults.vocab_size);
}

std::vector<int32_t> RequestBuilder::tokens_of(const std::string& prompt) const {
  std::vector<int32_t> tokens = encode_prompt(tokenizer_, config_, prompt);
  if (tokens.empty() && tokenizer_.bos()) tokens.push_back(*tokenizer_.bos());
  if (tokens.empty())
    throw UserError("", "the prompt has no tokens, and this tokenizer names no begin of a text",
                    "give a prompt of one character at least");
  return tokens;
}

int64_t& RequestBuilder::earlier_with(const std::vector<int32_t>& prompt) {
  std::vector<Repeated>& alike = unnamed_[fnv1a(prompt.data(), prompt.size() * sizeof(int32_t))];
  for (Repeated& each : alike)
    if (each.prompt == prompt) return each.requests;
  return alike.emplace_back(Repeated{prompt}).requests;
}

/// Its own place in the file does not enter: other lines may come and go.
uint64_t RequestBuilder::seed_of(const Request& request) {
  if (!request.custom_id.empty()) return default_seed(defaults_.seed, request.custom_id);
  return default_seed(defaults_.seed, request.prompt, earlier_with(request.prompt)++);
}

Request RequestBuilder::finished(LineOptions options, std::vector<int32_t> prompt, const std::string& custom_id) {
  Request& request = options.request;
  if (const auto keep = options.truncate_prompt_tokens; keep && *keep < std::ssize(prompt))
    prompt.erase(prompt.begin(), prompt.end() - *keep);
  request.prompt = std::move(prompt);
  request.custom_id = custom_id;
  if (options.to_the_end && defaults_.max_position > 0)
    request.max_tokens = std::max<int64_t>(defaults_.max_position - std::ssize(request.prompt), 1);
  check_ids(request.prompt, tokenizer_, defaults_.vocab_size);
  check_length(request, defaults_.max_position);
  check_scores(request);
  check_offset(request);
  require_new(request_ids_, custom_id);
  const uint64_t seed = seed_of(request);
  request.seed = options.seed.value_or(seed);
  return std::move(request);
}

void RequestBuilder::claim_id(const std::string& custom_id) { require_new(line_ids_, custom_id); }

void RequestBuilder::begin_line(AskedLine line) {
  line.first = file_.requests.size();
  line.count = 0;
  file_.lines.push_back(std::move(line));
}

void RequestBuilder::add_to_last(LineOptions options, std::vector<int32_t> prompt, const std::string& custom_id) {
  file_.requests.push_back(finished(std::move(options), std::move(prompt), custom_id));
  ++file_.lines.back().count;
}

void RequestBuilder::add(LineOptions options, std::vector<int32_t> prompt, AskedLine line) {
  const std::string custom_id = line.custom_id;
  begin_line(std::move(line));
  add_to_last(std::move(options), std::move(prompt), custom_id);
}

}  // namespace tessera
