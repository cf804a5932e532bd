#include "infer/requests/openai_results.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "infer/requests/token_texts.h"

namespace tessera {
namespace {

/// Clients read numbers here, and JSON has no infinity: what OpenAI tells of a token that cannot come.
constexpr double kNeverLogprob = -9999;

double told(float logprob) { return std::isfinite(logprob) ? static_cast<double>(logprob) : kNeverLogprob; }

/// One prompt with its result, while its choices are written.
struct Answered {
  const OpenAiBody& body;
  const Request& request;
  const RequestResult& result;
  const Tokenizer& tokenizer;
  const std::string& text;  // of the prompt
};

Json chat_token(const Answered& a, std::span<const int32_t> before, const TokenLogprob& token) {
  const std::string text = token_text(a.tokenizer, before, token.id);
  return Json::object().set("token", text).set("logprob", told(token.logprob)).set("bytes", token_bytes(text));
}

Json chat_logprobs(const Answered& a, const Output& output) {
  std::vector<int32_t> before = a.request.prompt;
  Json content = Json::array();
  for (const TokenLogprobs& token : output.logprobs) {
    Json top = Json::array();
    for (const TokenLogprob& each : token.top) top.push_back(chat_token(a, before, each));
    content.push_back(chat_token(a, before, token.token).set("top_logprobs", std::move(top)));
    before.push_back(token.token.id);
  }
  return Json::object().set("content", std::move(content)).set("refusal", Json());
}

/// Four lists with an item a token.
class CompletionLogprobs {
 public:
  explicit CompletionLogprobs(const Answered& a) : a_(a) {}

  /// A token that nothing stands before has no logprob.
  void add_first(int32_t id) { add(id, Json(), Json()); }

  void add(const TokenLogprobs& token) {
    Json top = Json::object();
    for (const TokenLogprob& each : token.top) add_top(top, each);
    add_top(top, token.token);
    add(token.token.id, told(token.token.logprob), std::move(top));
  }

  Json take() && {
    return Json::object()
        .set("tokens", std::move(tokens_))
        .set("token_logprobs", std::move(logprobs_))
        .set("top_logprobs", std::move(top_))
        .set("text_offset", std::move(offsets_));
  }

  /// Tokens in front whose text is not told.
  void pass(std::span<const int32_t> ids) { before_.insert(before_.end(), ids.begin(), ids.end()); }

 private:
  /// By their text: of several tokens with one text the likeliest stays, which comes first.
  void add_top(Json& top, const TokenLogprob& token) const {
    const std::string text = token_text(a_.tokenizer, before_, token.id);
    if (!top.find(text)) top.set(text, told(token.logprob));
  }
  void add(int32_t id, Json logprob, Json top) {
    tokens_.push_back(token_text(a_.tokenizer, before_, id));
    logprobs_.push_back(std::move(logprob));
    top_.push_back(std::move(top));
    offsets_.push_back(offset_);
    advance(id);
  }

  /// To where the next token's text begins. Tokens that are parts of a character all begin where it does, and special
  /// ones, which are told, may be no part of the text.
  void advance(int32_t id) {
    constexpr size_t kLookBack = 4, kLongestCharacter = 4;
    constexpr std::string_view kPart = "\xEF\xBF\xBD";
    before_.push_back(id);
    ++open_;
    const std::span<const int32_t> all(before_), front = all.first(all.size() - open_);
    std::string text = a_.tokenizer.decode_after(front.last(std::min(front.size(), kLookBack)), all.last(open_),
                                                 a_.request.skip_special_tokens);
    const bool is_whole = !text.ends_with(kPart) || open_ >= kLongestCharacter;
    while (!is_whole && text.ends_with(kPart)) text.resize(text.size() - kPart.size());
    offset_ = settled_ + characters_of(text);
    if (!is_whole) return;
    settled_ = offset_;
    open_ = 0;
  }

  const Answered& a_;
  std::vector<int32_t> before_{};
  int64_t offset_ = 0, settled_ = 0;  // characters in front of the next token, and of the last whole character's end
  size_t open_ = 0;                   // tokens behind it
  Json tokens_ = Json::array(), logprobs_ = Json::array(), top_ = Json::array(), offsets_ = Json::array();
};

Json completion_logprobs(const Answered& a, const Output& output) {
  CompletionLogprobs lists(a);
  if (a.body.echo) {
    TS_CHECK(a.result.prompt_logprobs.size() + 1 == a.request.prompt.size(), "{} logprobs of {} tokens of the prompt",
             a.result.prompt_logprobs.size(), a.request.prompt.size());
    lists.add_first(a.request.prompt[0]);
    for (const TokenLogprobs& token : a.result.prompt_logprobs) lists.add(token);
  } else {
    lists.pass(a.request.prompt);
  }
  for (const TokenLogprobs& token : output.logprobs) lists.add(token);
  return std::move(lists).take();
}

Json choice(const Answered& a, const Output& output, int64_t index) {
  Json choice = Json::object().set("index", index);
  if (a.body.is_chat)
    choice.set("message", Json::object().set("role", "assistant").set("content", output.text));
  else
    choice.set("text", (a.body.echo ? a.text : "") + output.text);
  const bool wants = a.request.logprobs >= 0;
  choice.set("logprobs", !wants ? Json() : a.body.is_chat ? chat_logprobs(a, output) : completion_logprobs(a, output));
  return choice.set("finish_reason", output.finish == Finish::stop ? "stop" : "length");
}

Json usage_of(std::span<const Request> requests, std::span<const RequestResult> results) {
  int64_t prompt = 0, cached = 0, completion = 0;
  for (const Request& request : requests) prompt += std::ssize(request.prompt);
  for (const RequestResult& result : results) {
    cached += result.cached_tokens;
    for (const Output& output : result.outputs) completion += std::ssize(output.ids);
  }
  return Json::object()
      .set("prompt_tokens", prompt)
      .set("completion_tokens", completion)
      .set("total_tokens", prompt + completion)
      .set("prompt_tokens_details", Json::object().set("cached_tokens", cached));
}

Json body_of(const AskedLine& line, std::span<const Request> requests, std::span<const RequestResult> results,
             const Tokenizer& tokenizer, const std::string& digits) {
  const OpenAiBody& body = *line.openai;
  Json choices = Json::array();
  int64_t index = 0;
  for (size_t i = 0; i < requests.size(); ++i)
    for (const Output& output : results[i].outputs)
      choices.push_back(choice({body, requests[i], results[i], tokenizer, body.texts.at(i)}, output, index++));
  return Json::object()
      .set("id", (body.is_chat ? "chatcmpl-" : "cmpl-") + digits)
      .set("object", body.is_chat ? "chat.completion" : "text_completion")
      .set("created", 0)
      .set("model", body.model)
      .set("choices", std::move(choices))
      .set("usage", usage_of(requests, results));
}

}  // namespace

Json openai_result(const AskedLine& line, std::span<const Request> requests, std::span<const RequestResult> results,
                   const Tokenizer& tokenizer, const std::string& digits) {
  Json json = Json::object().set("id", "batch_req_" + digits).set("custom_id", line.custom_id);
  const auto failed =
      std::ranges::find_if(results, [](const RequestResult& result) { return result.error.has_value(); });
  if (failed != results.end())
    return json.set("response", Json())
        .set("error", Json::object().set("code", failed->error->code).set("message", failed->error->message));
  json.set("response", Json::object()
                           .set("status_code", 200)
                           .set("request_id", "req_" + digits)
                           .set("body", body_of(line, requests, results, tokenizer, digits)));
  return json.set("error", Json());
}

}  // namespace tessera
