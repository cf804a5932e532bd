#include "infer/requests/batch_lines.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "data/encoding.h"
#include "infer/requests/line_kinds.h"

namespace tessera {
namespace {

/// A line's members: those that say what its prompt and its number are, and its options.
class BatchLine {
 public:
  explicit BatchLine(const Json& line) {
    for (const auto& [name, value] : line.members()) {
      if (!is_own(name))
        options.push_back({name, &value});
      else if (!value.is_null())
        own_.emplace(name, NamedValue{name, &value});
    }
  }
  const NamedValue* find(const char* name) const {
    const auto found = own_.find(name);
    return found == own_.end() ? nullptr : &found->second;
  }
  /// The one that says the prompt. @throws UserError when there is none, or another one too
  const NamedValue& prompt() const {
    const NamedValue* found = nullptr;
    for (const char* name : {"prompt", "prompt_token_ids", "prefix", "messages"}) {
      const NamedValue* value = find(name);
      if (found && value)
        throw UserError("", fmt::format("the line has both \"{}\" and \"{}\"", found->name, name), "leave one out");
      if (value) found = value;
    }
    if (!found)
      throw UserError("", "the line has no prompt",
                      "give \"prompt\", \"prompt_token_ids\", or \"prefix\" and \"contexts\"");
    if ((found->name == "prefix") != (find("contexts") != nullptr))
      throw UserError("", "\"prefix\" and \"contexts\" go together");
    return *found;
  }
  std::string custom_id() const {
    const NamedValue* id = find("custom_id");
    if (id && (!id->value->is_string() || id->value->as_string().empty())) id->refuse("a text that is not empty");
    return id ? id->text() : "";
  }
  std::vector<NamedValue> options{};

 private:
  static bool is_own(std::string_view name) {
    static const std::set<std::string_view> own = {"custom_id",        "prompt", "messages",
                                                   "prompt_token_ids", "prefix", "contexts"};
    return own.contains(name);
  }
  std::map<std::string, NamedValue> own_{};
};

std::vector<std::string> contexts_of(const NamedValue& contexts) {
  const auto is_text = [](const Json& item) { return item.is_string(); };
  if (!contexts.value->is_array() || contexts.value->items().empty() ||
      !std::ranges::all_of(contexts.value->items(), is_text))
    contexts.refuse("a list of texts");
  std::vector<std::string> texts;
  for (const Json& item : contexts.value->items()) texts.push_back(item.as_string());
  return texts;
}

void add_contexts(const BatchLine& line, const LineOptions& options, const AskedLine& asked, RequestBuilder& builder) {
  if (options.truncate_prompt_tokens)
    throw UserError("", "\"truncate_prompt_tokens\" would cut into the \"prefix\"", "shorten the contexts instead");
  const std::vector<int32_t> prefix = builder.tokens_of(line.find("prefix")->text());
  const Tokenizer::Special special =
      builder.config().has_template() ? Tokenizer::Special::parse : Tokenizer::Special::plain;
  // What is asked of a context is how likely it is behind the prefix.
  LineOptions own = options;
  if (own.request.max_tokens == 0 && !own.request.score_from && !prefix.empty())
    own.request.score_from = std::ssize(prefix);
  int64_t number = 0;
  for (const std::string& context : contexts_of(*line.find("contexts"))) {
    std::vector<int32_t> prompt = prefix;
    const std::vector<int32_t> ids = encode_continuation(builder.tokenizer(), context, special);
    prompt.insert(prompt.end(), ids.begin(), ids.end());
    AskedLine each = asked;
    each.prefix_tokens = std::ssize(prefix);
    if (!asked.custom_id.empty()) each.custom_id = fmt::format("{}/{}", asked.custom_id, number);
    ++number;
    builder.add(own, std::move(prompt), std::move(each));
  }
}

std::vector<int32_t> given_ids(const NamedValue& prompt, int64_t vocab) {
  std::vector<int32_t> ids = prompt.ids(vocab);
  if (ids.empty()) throw UserError("", fmt::format("\"{}\" is empty", prompt.name), "give one token at least");
  return ids;
}

std::vector<int32_t> prompt_of(const NamedValue& prompt, const RequestBuilder& builder) {
  if (prompt.name == "prompt_token_ids") return given_ids(prompt, builder.defaults().vocab_size);
  if (!prompt.value->is_array()) return builder.tokens_of(prompt.text());
  prompt.refuse("a text; tokens are given as \"prompt_token_ids\"");
}

}  // namespace

void refuse_messages() {
  throw UserError("", "\"messages\" are not read: they go through a chat template, and those are not read yet",
                  "give the text that the template makes of them as the prompt");
}

void add_batch_line(const Json& json, const std::string& where, RequestBuilder& builder) {
  const BatchLine line(json);
  const LineOptions options =
      read_options(line.options, batch_names(), builder.defaults(), builder.tokenizer(), builder.told_names());
  const AskedLine asked{.where = where, .custom_id = line.custom_id()};
  builder.claim_id(asked.custom_id);
  const NamedValue& prompt = line.prompt();
  if (prompt.name == "messages") {
    if (!builder.defaults().encode_messages) refuse_messages();
    builder.add(options, builder.defaults().encode_messages(*prompt.value), asked);
  } else if (prompt.name == "prefix") {
    add_contexts(line, options, asked, builder);
  } else {
    builder.add(options, prompt_of(prompt, builder), asked);
  }
}

}  // namespace tessera
