// Qwen2 and Qwen3: a Llama whose q, k and v have biases (2), or whose q and k are normed head by head (3). Some of
// their layers may attend in a sliding window.

#include "model/families/config_keys.h"
#include "model/families/decoder_config.h"
#include "model/families/layer_types.h"
#include "model/families/llama_block.h"

namespace tessera {
namespace {

/// Without a list of layers, those from max_window_layers on have the window, where windows are on at all.
ModelConfig read_qwen(const Json& json, const std::string& where, const DecoderDefaults& defaults) {
  ModelConfig config = read_decoder_config(json, where, defaults);
  const bool has_windows = flag_or(json, "use_sliding_window", false, where);
  const int64_t first = count_or(json, "max_window_layers", 28, where);
  read_layer_types(config, where, has_windows ? window_or(json, 4096, where) : 0,
                   [&](int64_t layer) { return has_windows && layer >= first; });
  return config;
}

ModelConfig read_2(const Json& json, const std::string& where) {
  require_known_keys(json, {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types", "use_mrope"},
                     where);
  require_value(json, "use_mrope", Json(false), where);
  ModelConfig config = read_qwen(json, where, {.kv_heads = 32, .max_position = 32768});
  config.family = "qwen2";
  return config;
}

ModelConfig read_3(const Json& json, const std::string& where) {
  require_known_keys(
      json, {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types", "attention_bias"}, where);
  ModelConfig config = read_qwen(json, where, {.kv_heads = 32, .head_dim = 128, .max_position = 32768});
  config.family = "qwen3";
  config.attention_bias = flag_or(json, "attention_bias", false, where);
  return config;
}

std::vector<WeightSpec> specs_2(const ModelConfig& c) { return llama_specs(c, {.qkv_bias = true}); }

std::vector<WeightSpec> specs_3(const ModelConfig& c) {
  return llama_specs(c, {.qkv_bias = c.attention_bias, .o_bias = c.attention_bias, .head_norms = true});
}

}  // namespace

ModelFamily qwen2_family() { return {"qwen2", "Qwen2 and Qwen2.5", read_2, specs_2}; }
ModelFamily qwen3_family() { return {"qwen3", "Qwen3, dense", read_3, specs_3}; }

}  // namespace tessera
