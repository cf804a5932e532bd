// Mistral: a Llama all of whose layers attend in a sliding window.

#include "model/families/config_keys.h"
#include "model/families/decoder_config.h"
#include "model/families/llama_block.h"

namespace tessera {
namespace {

ModelConfig read(const Json& json, const std::string& where) {
  require_known_keys(json, {"sliding_window", "attention_bias", "use_sliding_window"}, where);
  // Converters write what the class of another family has. That of this one does not look at them: with these values
  // they say what is so.
  require_value(json, "attention_bias", Json(false), where);
  require_value(json, "use_sliding_window", Json(false), where);
  ModelConfig config = read_decoder_config(json, where, {.kv_heads = 8, .max_position = 131072});
  config.family = "mistral";
  if (!is_null(json, "sliding_window"))  // later Mistrals see everything
    config.attention.assign(static_cast<size_t>(config.num_hidden_layers), {.window = window_or(json, 4096, where)});
  return config;
}

std::vector<WeightSpec> specs(const ModelConfig& c) { return llama_specs(c, {}); }

}  // namespace

ModelFamily mistral_family() { return {"mistral", "Mistral 7B and alike, with sliding windows", read, specs}; }

}  // namespace tessera
