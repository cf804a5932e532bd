// Llama: RMSNorm, rotary positions (with Llama-3's scaling), grouped-query attention, SwiGLU, tied or untied head.

#include "model/families/config_keys.h"
#include "model/families/decoder_config.h"
#include "model/families/llama_block.h"

namespace tessera {
namespace {

ModelConfig read(const Json& json, const std::string& where) {
  // The last two are published and without effect: into how many parts the products were cut where the model was
  // trained (Llama 2), and what Llama 1 calls the length of its training.
  require_known_keys(
      json,
      {"attention_bias", "mlp_bias", "rope_interleaved", "is_llama_config", "pretraining_tp", "max_sequence_length"},
      where);
  require_value(json, "rope_interleaved", Json(false), where);
  ModelConfig config = read_decoder_config(json, where, {});
  config.family = "llama";
  config.attention_bias = flag_or(json, "attention_bias", false, where);
  config.mlp_bias = flag_or(json, "mlp_bias", false, where);
  return config;
}

std::vector<WeightSpec> specs(const ModelConfig& c) {
  return llama_specs(c, {.qkv_bias = c.attention_bias, .o_bias = c.attention_bias, .mlp_bias = c.mlp_bias});
}

}  // namespace

ModelFamily llama_family() { return {"llama", "Llama 1-3, SmolLM, TinyLlama and alike", read, specs}; }

}  // namespace tessera
