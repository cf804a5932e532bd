// SmolLM3: a Llama with layers whose q and k are not turned by their positions.

#include "core/error.h"
#include "model/families/config_keys.h"
#include "model/families/decoder_config.h"
#include "model/families/layer_types.h"
#include "model/families/llama_block.h"

namespace tessera {
namespace {

/// no_rope_layers[i] is 1 where layer i is rotary, whatever the name says; without the list each fourth is not.
std::vector<bool> rotary_layers(const Json& json, int64_t layers, const std::string& where) {
  const int64_t interval = positive_or(json, "no_rope_layer_interval", 4, where);
  std::vector<bool> rotary;
  const Json* list = json.find("no_rope_layers");
  if (!list || (list->is_array() && list->items().empty())) {
    for (int64_t layer = 0; layer < layers; ++layer) rotary.push_back((layer + 1) % interval != 0);
    return rotary;
  }
  if (!list->is_array() || static_cast<int64_t>(list->items().size()) != layers)
    throw UserError(
        where, fmt::format("\"no_rope_layers\" is {}, expected a list of {} numbers, 0 or 1", list->dump(), layers));
  for (const Json& entry : list->items()) {
    if (!entry.is_integer() || (entry.as_integer() != 0 && entry.as_integer() != 1))
      throw UserError(where, fmt::format("\"no_rope_layers\" holds {}, expected 0 or 1", entry.dump()));
    rotary.push_back(entry.as_integer() == 1);
  }
  return rotary;
}

ModelConfig read(const Json& json, const std::string& where) {
  require_known_keys(
      json,
      {"attention_bias", "mlp_bias", "use_sliding_window", "sliding_window", "layer_types", "no_rope_layers",
       "no_rope_layer_interval", "pretraining_tp", "max_window_layers"},  // published, and without effect
      where);
  ModelConfig config =
      read_decoder_config(json, where, {.kv_heads = 4, .max_position = 32768, .rope_theta = 2e6, .tied = true});
  config.family = "smollm3";
  config.attention_bias = flag_or(json, "attention_bias", false, where);
  config.mlp_bias = flag_or(json, "mlp_bias", false, where);
  const std::vector<bool> rotary = rotary_layers(json, config.num_hidden_layers, where);
  const bool has_windows = flag_or(json, "use_sliding_window", false, where);
  const int64_t window = has_windows ? window_or(json, 0, where) : 0;
  read_layer_types(config, where, window,
                   [&](int64_t layer) { return window > 0 && !rotary[static_cast<size_t>(layer)]; });
  config.attention.resize(rotary.size());
  Json list = Json::array();
  for (size_t layer = 0; layer < rotary.size(); ++layer) {
    config.attention[layer].rotary = rotary[layer];
    list.push_back(int64_t{rotary[layer]});
  }
  config.source.set("no_rope_layers", list);
  return config;
}

std::vector<WeightSpec> specs(const ModelConfig& c) {
  return llama_specs(c, {.qkv_bias = c.attention_bias, .o_bias = c.attention_bias, .mlp_bias = c.mlp_bias});
}

}  // namespace

ModelFamily smollm3_family() { return {"smollm3", "SmolLM3, with layers that know no positions", read, specs}; }

}  // namespace tessera
