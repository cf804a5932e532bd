#include "infer/requests/result_lines.h"

#include "core/error.h"
#include "infer/requests/openai_results.h"
#include "io/files.h"

namespace tessera {
namespace {

Json to_json(const RequestError& error) { return Json::object().set("code", error.code).set("message", error.message); }

Json to_json(const TokenLogprob& token) {
  return Json::object().set("token_id", int64_t{token.id}).set("logprob", static_cast<double>(token.logprob));
}

Json to_json(const std::vector<TokenLogprob>& tokens) {
  Json list = Json::array();
  for (const TokenLogprob& token : tokens) list.push_back(to_json(token));
  return list;
}

Json to_json(const std::vector<TokenLogprobs>& tokens) {
  Json list = Json::array();
  for (const TokenLogprobs& token : tokens) list.push_back(to_json(token.token).set("top", to_json(token.top)));
  return list;
}

Json to_json(const std::vector<int32_t>& ids) {
  Json list = Json::array();
  for (const int32_t id : ids) list.push_back(int64_t{id});
  return list;
}

/// Of the tokens scored, with the k best where they were asked for.
Json to_json(const Scores& scores, const std::vector<TokenLogprobs>& best) {
  Json logprobs = Json::array(), greedy = Json::array();
  for (const float logprob : scores.logprobs) logprobs.push_back(static_cast<double>(logprob));
  for (const uint8_t is_greedy : scores.greedy) greedy.push_back(is_greedy != 0);
  Json json = Json::object()
                  .set("from", scores.from)
                  .set("token_ids", to_json(scores.ids))
                  .set("logprobs", std::move(logprobs))
                  .set("greedy", std::move(greedy))
                  .set("sum", scores.sum)
                  .set("all_greedy", scores.all_greedy);
  if (best.empty()) return json;
  TS_CHECK(best.size() == scores.ids.size(), "the best of {} tokens, and {} are scored", best.size(),
           scores.ids.size());
  Json top = Json::array();
  for (const TokenLogprobs& token : best) top.push_back(to_json(token.top));
  return json.set("top", std::move(top));
}

/// The first token has none before it.
Json prompt_logprobs(const std::vector<TokenLogprobs>& tokens) {
  Json list = Json::array();
  list.push_back(Json());
  for (const TokenLogprobs& token : tokens) list.push_back(to_json(token.token).set("top", to_json(token.top)));
  return list;
}

/// What was asked for besides continuations.
void add_scores(Json& line, const Request& request, const RequestResult& result) {
  if (result.scores)
    line.set("scores", to_json(*result.scores, result.prompt_logprobs));
  else if (request.prompt_logprobs >= 0 && !result.error)
    line.set("prompt_logprobs", prompt_logprobs(result.prompt_logprobs));
}

std::string_view finish_reason(Finish finish) {
  return finish == Finish::stop ? "stop" : finish == Finish::failed ? "error" : "length";
}

Json to_json(const Output& output, const Request& request) {
  return Json::object()
      .set("text", output.text)
      .set("token_ids", to_json(output.ids))
      .set("finish_reason", finish_reason(output.finish))
      .set("cumulative_logprob", output.cumulative_logprob)
      .set("logprobs", request.logprobs >= 0 ? to_json(output.logprobs) : Json());
}

Json batch_result(const AskedLine& line, const Request& request, const RequestResult& result) {
  Json outputs = Json::array();
  int64_t completion_tokens = 0;
  for (const Output& output : result.outputs) {
    outputs.push_back(to_json(output, request));
    completion_tokens += std::ssize(output.ids);
  }
  Json json = Json::object()
                  .set("custom_id", line.custom_id.empty() ? Json() : Json(line.custom_id))
                  .set("outputs", std::move(outputs));
  add_scores(json, request, result);
  json.set("usage", Json::object()
                        .set("prompt_tokens", std::ssize(request.prompt))
                        .set("cached_tokens", result.cached_tokens)
                        .set("completion_tokens", completion_tokens));
  if (result.error) json.set("error", to_json(*result.error));
  return json;
}

/// The logprobs of the one completion, or a list of those of each.
Json completions_logprobs(const std::vector<Output>& outputs) {
  if (outputs.size() == 1) return to_json(outputs[0].logprobs);
  Json list = Json::array();
  for (const Output& output : outputs) list.push_back(to_json(output.logprobs));
  return list;
}

Json text_result(const AskedLine& line, const Request& request, const RequestResult& result,
                 const std::optional<ExpectedAnswer>& expected) {
  const Output none{.finish = Finish::failed};
  const Output& first = result.outputs.empty() ? none : result.outputs.front();
  const Finish finish = result.error ? Finish::failed : first.finish;
  Json json = Json::object().set("prompt", line.example.prompt).set("completion", first.text);
  if (request.n > 1) {
    Json texts = Json::array();
    for (const Output& output : result.outputs) texts.push_back(output.text);
    json.set("completions", std::move(texts));
  }
  json.set("finish", finish == Finish::failed ? "error" : name_of(finish));
  if (request.logprobs >= 0 && !result.outputs.empty()) json.set("logprobs", completions_logprobs(result.outputs));
  add_scores(json, request, result);
  if (result.error) json.set("error", to_json(*result.error));
  if (expected) json.set("expected", expected->text).set("exact", expected->is_right);
  return json;
}

/// 24 hex digits that no other line of this batch has, and no other batch.
std::string id_digits(const std::string& identity, size_t number) {
  constexpr size_t kDigits = 24;
  return sha256_hex(fmt::format("{}:{}", identity, number)).substr(0, kDigits);
}

}  // namespace

ResultLines::ResultLines(const RequestFile& file, const Tokenizer& tokenizer, std::string identity)
    : file_(&file), tokenizer_(&tokenizer), identity_(std::move(identity)) {}

std::string ResultLines::line(size_t number, std::span<const RequestResult> results,
                              const std::optional<ExpectedAnswer>& expected) const {
  const AskedLine& line = file_->lines.at(number);
  TS_CHECK(results.size() == line.count, "{} results of {} requests", results.size(), line.count);
  const std::span<const Request> requests = std::span(file_->requests).subspan(line.first, line.count);
  switch (file_->kind) {
    case RequestKind::text:
    case RequestKind::records:
      return text_result(line, requests[0], results[0], expected).dump();
    case RequestKind::batch:
      return batch_result(line, requests[0], results[0]).dump();
    case RequestKind::openai:
      return openai_result(line, requests, results, *tokenizer_, id_digits(identity_, number)).dump();
  }
  TS_CHECK(false, "a kind that is none: {}", static_cast<int>(file_->kind));
  return "";
}

std::string with_index(size_t number, const std::string& line) {
  TS_CHECK(line.size() > 2 && line[0] == '{', "an answer is an object with members");
  return fmt::format("{{\"index\":{},{}", number, std::string_view(line).substr(1));
}

}  // namespace tessera
