#pragma once
// model/: the decoder, its parameters and the sharing methods.

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/tensor.h"
#include "model/weights.h"

namespace tessera {

/// Rotary embedding: base frequency and Llama-3's rescaling of low frequencies (factor 1 = none).
struct RopeConfig {
  double theta = 10000;
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_position_embeddings = 8192;
};

/// How one layer attends.
struct LayerAttention {
  int64_t window = 0;  // keys that a token sees, its own the last of them; 0: all before it
  bool rotary = true;  // its q and k are turned by their positions
  friend bool operator==(const LayerAttention&, const LayerAttention&) = default;
};

/// A decoder, in Hugging Face's words. Families differ by these numbers and by names, not by subclass.
struct ModelConfig {
  std::string family;  // "llama"
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0;
  int64_t num_hidden_layers = 0, num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6, initializer_range = 0.02;
  RopeConfig rope;
  bool attention_bias = false, mlp_bias = false;
  std::vector<LayerAttention> attention{};  // [layers]; empty: of every layer the same, all keys and rotary
  bool tie_word_embeddings = false;
  DType dtype = DType::f32;  // what exported files are stored in
  Json source;               // the config.json it came from, for exports

  int64_t query_width() const { return num_attention_heads * head_dim; }
  int64_t key_width() const { return num_key_value_heads * head_dim; }
  LayerAttention attention_of(int64_t layer) const {
    return attention.empty() ? LayerAttention{} : attention.at(static_cast<size_t>(layer));
  }
};

/// One architecture: which configs it reads, what its weights are called. Listed in families/registry.cpp.
struct ModelFamily {
  std::string_view name;  // model_type in config.json
  std::string_view help;
  ModelConfig (*read)(const Json& config, const std::string& where);
  std::vector<WeightSpec> (*specs)(const ModelConfig&);
};
const std::vector<ModelFamily>& model_families();
const ModelFamily& model_family(const std::string& name, const std::string& where);

/// Reads config.json. @throws UserError naming the architecture or the key that changes the maths and is not supported
ModelConfig read_model_config(const std::filesystem::path& config_json);
ModelConfig parse_model_config(const Json&, const std::string& where);

/// The weights of the model in forward order. Numbers into this list name weights everywhere.
std::vector<WeightSpec> weight_specs(const ModelConfig&);

/// A layer of the model that config.json describes, as a model with other layers has it: whole, or with one half left.
struct BaseLayer {
  int original = 0;  // its index there
  bool has_attention = true, has_mlp = true;
};
/// All layers of a config, each at its own place.
std::vector<BaseLayer> all_base_layers(const ModelConfig&);

/// The config of a model whose layer v is layer layers[v].original of `base`: their number, and the lists of
/// ModelConfig::source that have an entry a layer.
ModelConfig config_of_layers(const ModelConfig& base, std::span<const BaseLayer> layers);

/// The weights of that model. They are called and numbered by its own layers; a spec's `source` is the tensor's name
/// in the files of `base`. What belongs to a half that a layer does without is left out.
std::vector<WeightSpec> weight_specs(const ModelConfig& base, std::span<const BaseLayer> layers);

}  // namespace tessera
