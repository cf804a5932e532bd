#include "model/families/config_keys.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace tessera {
namespace {

/// Read by read_decoder_config.
constexpr std::string_view kShared[] = {
    "model_type",      "vocab_size",          "hidden_size",  "intermediate_size",
    "head_dim",        "num_hidden_layers",   "hidden_act",   "num_attention_heads",
    "dtype",           "num_key_value_heads", "rms_norm_eps", "max_position_embeddings",
    "torch_dtype",     "initializer_range",   "rope_theta",   "rope_scaling",
    "rope_parameters", "tie_word_embeddings"};

/// What a model computes does not hang on these: names, tokens, other programs' settings, dropout (which belongs to
/// training; ours is the recipe's), and the settings of generation and of other heads that older versions of
/// transformers wrote into every config.json.
constexpr std::string_view kWithoutEffect[] = {"architectures",
                                               "auto_map",
                                               "_name_or_path",
                                               "_commit_hash",
                                               "_attn_implementation",
                                               "_attn_implementation_autoset",
                                               "_attn_implementation_internal",
                                               "_experts_implementation",
                                               "_flash_attn_2_enabled",
                                               "transformers_version",
                                               "transformers.js_config",
                                               "unsloth_fixed",
                                               "unsloth_version",
                                               "bos_token_id",
                                               "eos_token_id",
                                               "pad_token_id",
                                               "unk_token_id",
                                               "sep_token_id",
                                               "decoder_start_token_id",
                                               "forced_bos_token_id",
                                               "forced_eos_token_id",
                                               "tokenizer_class",
                                               "use_cache",
                                               "attention_dropout",
                                               "hidden_dropout",
                                               "resid_dropout",
                                               "embd_dropout",
                                               "gradient_checkpointing",
                                               "task_specific_params",
                                               "id2label",
                                               "label2id",
                                               "num_labels",
                                               "problem_type",
                                               "finetuning_task",
                                               "output_attentions",
                                               "output_hidden_states",
                                               "return_dict",
                                               "torchscript",
                                               "use_bfloat16",
                                               "tf_legacy_loss",
                                               "chunk_size_feed_forward",
                                               "max_length",
                                               "min_length",
                                               "do_sample",
                                               "temperature",
                                               "top_k",
                                               "top_p",
                                               "typical_p",
                                               "repetition_penalty",
                                               "length_penalty",
                                               "no_repeat_ngram_size",
                                               "encoder_no_repeat_ngram_size",
                                               "bad_words_ids",
                                               "num_return_sequences",
                                               "num_beams",
                                               "num_beam_groups",
                                               "diversity_penalty",
                                               "early_stopping",
                                               "output_scores",
                                               "return_dict_in_generate",
                                               "remove_invalid_values",
                                               "exponential_decay_length_penalty",
                                               "suppress_tokens",
                                               "begin_suppress_tokens",
                                               "prefix",
                                               "is_decoder",
                                               "chat_template",
                                               "description"};

/// Parts of a model that none of ours has: with these values config.json says so, as older versions of transformers
/// and converters do; with others it asks for arithmetic that is not there.
struct HarmlessValue {
  std::string_view key;
  std::string_view value;  // as JSON
};
constexpr HarmlessValue kHarmless[] = {{"pruned_heads", "{}"},          {"add_cross_attention", "false"},
                                       {"is_encoder_decoder", "false"}, {"tie_encoder_decoder", "false"},
                                       {"partial_rotary_factor", "1"},  {"partial_rotary_factor", "1.0"}};

std::string shortened(const std::string& text) {
  const std::string front = fmt::format("{:.80}", text);
  return front.size() < text.size() ? front + "..." : text;
}

bool is_harmless(std::string_view key, const Json& value) {
  const std::string text = value.dump();
  return std::ranges::any_of(kHarmless, [&](const HarmlessValue& h) { return h.key == key && h.value == text; });
}

bool is_one_of(std::span<const std::string_view> keys, std::string_view key) {
  return std::ranges::find(keys, key) != keys.end();
}

}  // namespace

int64_t positive(const Json& json, std::string_view key, const std::string& where, int64_t most) {
  const Json* value = json.find(key);
  if (!value) throw UserError(where, fmt::format("the key \"{}\" is missing", key));
  if (!value->is_integer() || value->as_integer() <= 0 || value->as_integer() > most)
    throw UserError(where, fmt::format("\"{}\" is {}, expected a whole number, 1 to {}", key, value->dump(), most));
  return value->as_integer();
}

int64_t positive_or(const Json& json, std::string_view key, int64_t otherwise, const std::string& where) {
  return json.find(key) ? positive(json, key, where) : otherwise;
}

int64_t count_or(const Json& json, std::string_view key, int64_t otherwise, const std::string& where) {
  const Json* value = json.find(key);
  if (!value) return otherwise;
  if (!value->is_integer() || value->as_integer() < 0)
    throw UserError(where, fmt::format("\"{}\" is {}, expected a whole number, 0 or more", key, value->dump()));
  return value->as_integer();
}

bool is_null(const Json& json, std::string_view key) {
  return std::ranges::any_of(json.members(), [&](const auto& m) { return m.first == key && m.second.is_null(); });
}

int64_t window_or(const Json& json, int64_t otherwise, const std::string& where) {
  return positive_or(json, "sliding_window", otherwise, where);
}

bool flag_or(const Json& json, std::string_view key, bool otherwise, const std::string& where) {
  const Json* value = json.find(key);
  if (!value) return otherwise;
  if (!value->is_bool())
    throw UserError(where, fmt::format("\"{}\" is {}, expected true or false", key, value->dump()));
  return value->as_bool();
}

void require_known_keys(const Json& json, std::initializer_list<std::string_view> own, const std::string& where) {
  std::string unknown;
  int64_t count = 0;
  for (const auto& [key, value] : json.members()) {
    if (value.is_null() || is_one_of(kShared, key) || is_one_of(own, key) || is_one_of(kWithoutEffect, key) ||
        is_harmless(key, value))
      continue;
    unknown += fmt::format("{}\"{}\" is {}", count++ == 0 ? "" : ", ", key, shortened(value.dump()));
  }
  if (count == 0) return;
  throw UserError(
      where,
      fmt::format("{}: {} that the family \"{}\" does not have here, and that may change what the model computes",
                  unknown, count == 1 ? "a key" : "keys", json.at("model_type").as_string()),
      fmt::format("remove {} from config.json if the model computes the same without {}", count == 1 ? "it" : "them",
                  count == 1 ? "it" : "them"));
}

void require_value(const Json& json, std::string_view key, const Json& value, const std::string& where) {
  if (const Json* found = json.find(key); found && found->dump() != value.dump())
    unsupported(key, *found, value.dump(), where);
}

double above_zero_or(const Json& json, std::string_view key, double otherwise, const std::string& where) {
  const Json* value = json.find(key);
  if (!value) return otherwise;
  if (!value->is_number() || !(value->as_number() > 0))
    throw UserError(where, fmt::format("\"{}\" is {}, expected a number above 0", key, value->dump()));
  constexpr double kLeast = std::numeric_limits<float>::min(), kMost = std::numeric_limits<float>::max();
  if (value->as_number() < kLeast || value->as_number() > kMost)  // it is computed with in f32
    throw UserError(where, fmt::format("\"{}\" is {}, expected {:.3g} to {:.3g}", key, value->dump(), kLeast, kMost));
  return value->as_number();
}

[[noreturn]] void unsupported(std::string_view key, const Json& value, const std::string& supported,
                              const std::string& where) {
  throw UserError(
      where, fmt::format("\"{}\" is {}: this changes the model's arithmetic and is not supported", key, value.dump()),
      "supported: " + supported);
}

}  // namespace tessera
