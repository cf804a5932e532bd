#include "infer/requests/openai_lines.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "infer/requests/batch_lines.h"
#include "infer/requests/request_limits.h"

namespace tessera {
namespace {

constexpr int64_t kDefaultTokens = 16;  // of /v1/completions

/// Read here; all other names are options.
const std::vector<std::string>& own_names() {
  static const std::vector<std::string> names = {"model",    "messages",        "prompt", "max_completion_tokens",
                                                 "logprobs", "top_logprobs",    "echo",   "suffix",
                                                 "stream",   "response_format", "tools",  "functions",
                                                 "user",     "metadata",        "store",  "service_tier"};
  return names;
}

/// A body's members by what reads them.
struct Body {
  std::map<std::string, NamedValue, std::less<>> own{};  // without null ones
  std::vector<NamedValue> options{};

  explicit Body(const Json& body) {
    for (const auto& [name, value] : body.members()) {
      if (std::ranges::find(own_names(), name) == own_names().end())
        options.push_back({name, &value});
      else if (!value.is_null())
        own.emplace(name, NamedValue{name, &value});
    }
  }
  const NamedValue* find(std::string_view name) const {
    const auto found = own.find(name);
    return found == own.end() ? nullptr : &found->second;
  }
  bool truth(std::string_view name) const {
    const NamedValue* value = find(name);
    return value && value->truth();
  }
};

const NamedValue& require_member(const std::map<std::string, NamedValue>& members, const char* name) {
  const auto found = members.find(name);
  if (found == members.end()) throw UserError("", fmt::format("the line has no \"{}\"", name));
  return found->second;
}

std::map<std::string, NamedValue> line_members(const Json& line) {
  std::map<std::string, NamedValue> members;
  for (const auto& [name, value] : line.members()) {
    if (name != "custom_id" && name != "method" && name != "url" && name != "body")
      throw UserError("", fmt::format("the name \"{}\" is unknown", name),
                      "a line has custom_id, method, url and body; options stand in the body");
    if (!value.is_null()) members.emplace(name, NamedValue{name, &value});
  }
  return members;
}

bool is_chat_url(const NamedValue& url) {
  if (url.text() == "/v1/chat/completions") return true;
  if (url.text() != "/v1/completions") url.refuse("\"/v1/chat/completions\" or \"/v1/completions\"");
  return false;
}

void refuse_what_is_not_offered(const Body& body, bool is_chat) {
  if (body.truth("stream"))
    throw UserError("", "\"stream\" is true: a batch is answered in a file", "leave it out, or set it to false");
  for (const char* name : {"tools", "functions"})
    if (body.find(name)) throw UserError("", fmt::format("\"{}\" are not offered", name), "leave them out");
  if (const NamedValue* suffix = body.find("suffix"); suffix && !suffix->text().empty())
    throw UserError("", "\"suffix\" is not offered: texts are continued, not filled in", "leave it out");
  if (const NamedValue* format = body.find("response_format")) {
    const Json* type = format->value->find("type");
    if (!type || !type->is_string() || type->as_string() != "text") format->refuse("{\"type\": \"text\"}");
  }
  const char* others = is_chat ? "prompt" : "messages";
  if (body.find(others))
    throw UserError("",
                    fmt::format("\"{}\" belongs to {}", others, is_chat ? "/v1/completions" : "/v1/chat/completions"));
  for (const char* name : {"echo", "suffix"})
    if (is_chat && body.find(name)) throw UserError("", fmt::format("\"{}\" belongs to /v1/completions", name));
}

/// Both names of the largest number of new tokens are one option.
void add_max_tokens(Body& body) {
  const NamedValue* value = body.find("max_completion_tokens");
  if (!value) return;
  const auto other = std::ranges::find(body.options, "max_tokens", &NamedValue::name);
  if (other != body.options.end() && !other->value->is_null() && other->value->dump() != value->value->dump())
    throw UserError("",
                    fmt::format("\"max_tokens\" and \"max_completion_tokens\" are two names of one option and "
                                "differ: {} and {}",
                                other->value->dump(), value->value->dump()),
                    "leave one of them out");
  value->whole(0, kMostNewTokens);  // told under its own name
  std::erase_if(body.options, [](const NamedValue& each) { return each.name == "max_tokens"; });
  body.options.push_back({"max_tokens", value->value});
}

/// Chat says in two members what completions say in one number.
void read_logprobs(const Body& body, bool is_chat, Request& request) {
  const NamedValue *logprobs = body.find("logprobs"), *top = body.find("top_logprobs");
  if (!is_chat) {
    if (top) throw UserError("", "\"top_logprobs\" belongs to /v1/chat/completions", "\"logprobs\" is the number here");
    if (logprobs) request.logprobs = logprobs->whole(0, kMostLogprobs);
    return;
  }
  if (top && !body.truth("logprobs")) throw UserError("", "\"top_logprobs\" goes with \"logprobs\" true");
  if (logprobs) request.logprobs = !logprobs->truth() ? -1 : top ? top->whole(0, kMostLogprobs) : 0;
}

/// The body's model is the base or an adapter.
void read_model(const Body& body, const RequestDefaults& defaults, LineOptions& options) {
  const NamedValue* model = body.find("model");
  if (!model || (model->text() == defaults.model_name && !defaults.adapters.contains(model->text()))) return;
  const std::string& name = model->text();
  if (name != "base" && !defaults.adapters.contains(name)) {
    std::string known = defaults.model_name.empty() ? "base" : defaults.model_name + ", base";
    for (const std::string& each : defaults.adapters) known += ", " + each;
    throw UserError("", fmt::format("the model \"{}\" is unknown", name), "known ones: " + known);
  }
  if (options.said.contains("adapter") && options.request.adapter != name)
    throw UserError("", fmt::format("\"model\" is \"{}\" and \"adapter\" \"{}\"", name, options.request.adapter),
                    "leave one of them out");
  options.request.adapter = name;
}

/// A prompt with the text that `echo` repeats.
struct BodyPrompt {
  std::vector<int32_t> ids;
  std::string text;
};

BodyPrompt prompt_of(const NamedValue& value, const RequestBuilder& builder, bool skip_special) {
  if (value.value->is_string()) return {builder.tokens_of(value.text()), value.text()};
  std::vector<int32_t> ids = value.ids(builder.defaults().vocab_size);
  if (ids.empty()) throw UserError("", fmt::format("\"{}\" has a prompt without tokens", value.name));
  std::string text = builder.tokenizer().decode(ids, skip_special);
  return {std::move(ids), std::move(text)};
}

/// A text, a list of ids, or a list of either.
std::vector<BodyPrompt> prompts_of(const NamedValue& value, const RequestBuilder& builder, bool skip_special) {
  const auto is_list_of = [&](auto is) {
    return value.value->is_array() && !value.value->items().empty() && std::ranges::all_of(value.value->items(), is);
  };
  if (value.value->is_string() || is_list_of([](const Json& item) { return item.is_number(); }))
    return {prompt_of(value, builder, skip_special)};
  if (!is_list_of([](const Json& item) { return item.is_string(); }) &&
      !is_list_of([](const Json& item) { return item.is_array(); }))
    value.refuse("a text, a list of token ids, or a list of texts or of such lists");
  std::vector<BodyPrompt> prompts;
  for (const Json& item : value.value->items())
    prompts.push_back(prompt_of({value.name, &item}, builder, skip_special));
  return prompts;
}

std::vector<BodyPrompt> prompts_of_body(const Body& body, bool is_chat, const RequestBuilder& builder,
                                        const Request& request) {
  const NamedValue* prompt = body.find(is_chat ? "messages" : "prompt");
  if (!prompt) throw UserError("", fmt::format("the body has no \"{}\"", is_chat ? "messages" : "prompt"));
  if (!is_chat) return prompts_of(*prompt, builder, request.skip_special_tokens);
  if (!builder.defaults().encode_messages) refuse_messages();
  return {{builder.defaults().encode_messages(*prompt->value), ""}};
}

/// An echo has the prompt's logprobs beside those of new tokens. There is no other place for them.
void read_echo(const Body& body, LineOptions& options) {
  for (const char* name : {"prompt_logprobs", "score_from"})
    if (options.said.contains(name))
      throw UserError("", fmt::format("\"{}\" has no place in answers of OpenAI's", name),
                      "\"echo\" with \"logprobs\" tells the prompt's tokens, and with \"max_tokens\" 0 them alone");
  const bool echo = body.truth("echo");
  if (echo && options.truncate_prompt_tokens)
    throw UserError("", "\"echo\" repeats the prompt, and \"truncate_prompt_tokens\" cuts it", "leave one of them out");
  options.request.prompt_logprobs = echo ? options.request.logprobs : -1;
}

/// Beams are searched without draws: there is no temperature by default.
bool asks_for_beams(const Body& body, const RequestDefaults& defaults) {
  const auto said = std::ranges::find(body.options, "num_beams", &NamedValue::name);
  if (said == body.options.end() || said->value->is_null()) return defaults.request.beams.width > 1;
  return said->whole(1, kMostBeams) > 1;
}

/// What the body does not say is the recipe's, where the recipe says it, else OpenAI's default.
LineOptions options_of(Body& body, bool is_chat, RequestBuilder& builder) {
  RequestDefaults defaults = builder.defaults();
  if (!defaults.given.contains("temperature") && !asks_for_beams(body, defaults))
    defaults.request.sampling.temperature = 1;
  const bool has_own_length = !defaults.given.contains("max_new_tokens");
  if (has_own_length) defaults.request.max_tokens = is_chat ? kMostNewTokens : kDefaultTokens;
  add_max_tokens(body);
  LineOptions options = read_options(body.options, own_names(), defaults, builder.tokenizer(), builder.told_names());
  options.to_the_end = is_chat && has_own_length && !options.said.contains("max_tokens");
  read_logprobs(body, is_chat, options.request);
  read_model(body, defaults, options);
  read_echo(body, options);
  return options;
}

}  // namespace

void add_openai_line(const Json& json, const std::string& where, RequestBuilder& builder) {
  const std::map<std::string, NamedValue> line = line_members(json);
  const NamedValue& custom_id = require_member(line, "custom_id");
  if (custom_id.text().empty()) custom_id.refuse("a text that is not empty");
  builder.claim_id(custom_id.text());
  if (const NamedValue& method = require_member(line, "method"); method.text() != "POST") method.refuse("\"POST\"");
  const bool is_chat = is_chat_url(require_member(line, "url"));
  const NamedValue& body_value = require_member(line, "body");
  if (!body_value.value->is_object()) body_value.refuse("an object");
  Body body(*body_value.value);
  refuse_what_is_not_offered(body, is_chat);
  const LineOptions options = options_of(body, is_chat, builder);
  std::vector<BodyPrompt> prompts = prompts_of_body(body, is_chat, builder, options.request);

  const NamedValue* model = body.find("model");
  OpenAiBody answer{
      .is_chat = is_chat, .model = model ? model->text() : builder.defaults().model_name, .echo = body.truth("echo")};
  for (const BodyPrompt& prompt : prompts) answer.texts.push_back(prompt.text);
  builder.begin_line({.where = where, .custom_id = custom_id.text(), .openai = std::move(answer)});
  for (size_t i = 0; i < prompts.size(); ++i)
    builder.add_to_last(options, std::move(prompts[i].ids),
                        prompts.size() == 1 ? custom_id.text() : fmt::format("{}/{}", custom_id.text(), i));
}

}  // namespace tessera
