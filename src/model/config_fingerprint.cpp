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

}  // namespace tessera
