#include "model/config_fingerprint.h"

#include <bit>

#include "core/error.h"
#include "io/files.h"

namespace tessera {
namespace {

std::string bits_of(double value) { return fmt::format("{:016x}", std::bit_cast<uint64_t>(value)); }

/// Rescaling by a factor of 1 is none, whatever its other numbers are.
std::string text_of(const RopeConfig& rope) {
  std::string text = bits_of(rope.theta);
  if (rope.factor == 1) return text;
  return text + fmt::format(" {} {} {} {}", bits_of(rope.factor), bits_of(rope.low_freq_factor),
                            bits_of(rope.high_freq_factor), rope.original_max_position_embeddings);
}

/// What the first families did not have; empty where a model has none of it.
std::string text_of_options(const ModelConfig& c) {
  std::string text;
  if (c.attention_bias || c.mlp_bias) text += fmt::format("biases {} {}\n", c.attention_bias, c.mlp_bias);
  for (const LayerAttention& layer : c.attention) text += fmt::format("{} {} ", layer.window, layer.rotary);
  return text;
}

}  // namespace

std::string config_fingerprint(const ModelConfig& c) {
  return sha256_hex(fmt::format("{}\n{} {} {} {}\n{} {} {}\n{}\n{}\n{}\n{}", c.family, c.vocab_size, c.hidden_size,
                                c.intermediate_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads,
                                c.head_dim, bits_of(c.rms_norm_eps), text_of(c.rope), c.tie_word_embeddings,
                                text_of_options(c)));
}

Json config_numbers(const ModelConfig& c) {
  Json numbers = Json::object();
  numbers.set("model_type", c.family)
      .set("vocab_size", c.vocab_size)
      .set("hidden_size", c.hidden_size)
      .set("intermediate_size", c.intermediate_size)
      .set("num_hidden_layers", c.num_hidden_layers)
      .set("num_attention_heads", c.num_attention_heads)
      .set("num_key_value_heads", c.num_key_value_heads)
      .set("head_dim", c.head_dim)
      .set("rms_norm_eps", c.rms_norm_eps)
      .set("rope_theta", c.rope.theta)
      .set("tie_word_embeddings", c.tie_word_embeddings)
      .set("attention_bias", c.attention_bias)
      .set("mlp_bias", c.mlp_bias);
  if (c.rope.factor != 1)
    numbers.set("factor", c.rope.factor)
        .set("low_freq_factor", c.rope.low_freq_factor)
        .set("high_freq_factor", c.rope.high_freq_factor)
        .set("original_max_position_embeddings", c.rope.original_max_position_embeddings);
  if (c.attention.empty()) return numbers;
  Json windows = Json::array(), rotary = Json::array();
  for (const LayerAttention& layer : c.attention) {
    windows.push_back(layer.window);
    rotary.push_back(layer.rotary);
  }
  return numbers.set("windows by layer (0: none)", windows).set("rotary layers", rotary);
}

std::string changed_numbers(const Json& before, const Json& now) {
  std::string text;
  const auto add = [&](const std::string& key) {
    const Json *old = before.find(key), *found = now.find(key);
    const std::string was = old ? old->dump() : "not there", is = found ? found->dump() : "not there";
    if (was != is) text += fmt::format("{}{} was {} and is {}", text.empty() ? "" : ", ", key, was, is);
  };
  for (const auto& [key, value] : before.members()) add(key);
  for (const auto& [key, value] : now.members())
    if (!before.find(key)) add(key);
  return text;
}

}  // namespace tessera
