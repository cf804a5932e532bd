#include "model/model_config.h"

#include <map>

#include "core/error.h"
#include "io/json_file.h"
#include "model/fold/plan_shapes.h"

namespace tessera {
namespace {

/// Lists of config.json with an entry a layer.
constexpr const char* kListsOfLayers[] = {"layer_types", "no_rope_layers"};

}  // namespace

const ModelFamily& model_family(const std::string& name, const std::string& where) {
  std::string known;
  for (const ModelFamily& family : model_families()) {
    if (family.name == name) return family;
    known += fmt::format(" \"{}\"", family.name);
  }
  throw UserError(where, fmt::format("model_type \"{}\" is not supported", name), "supported:" + known);
}

ModelConfig parse_model_config(const Json& json, const std::string& where) {
  const Json* type = json.find("model_type");
  if (!type || !type->is_string())
    throw UserError(where, "the key \"model_type\" is missing", "this does not look like a Hugging Face config.json");
  return with_place(where, [&] { return model_family(type->as_string(), where).read(json, where); });
}

ModelConfig read_model_config(const std::filesystem::path& config_json) {
  return parse_model_config(read_configuration(config_json), config_json.string());
}

std::vector<WeightSpec> weight_specs(const ModelConfig& config) {
  return model_family(config.family, "").specs(config);
}

std::vector<BaseLayer> all_base_layers(const ModelConfig& config) {
  std::vector<BaseLayer> layers(static_cast<size_t>(config.num_hidden_layers));
  for (size_t i = 0; i < layers.size(); ++i) layers[i].original = static_cast<int>(i);
  return layers;
}

ModelConfig config_of_layers(const ModelConfig& base, std::span<const BaseLayer> layers) {
  ModelConfig config = base;
  config.num_hidden_layers = static_cast<int64_t>(layers.size());
  config.attention.clear();
  if (!base.attention.empty())
    for (const BaseLayer& layer : layers) config.attention.push_back(base.attention_of(layer.original));
  if (config.num_hidden_layers == base.num_hidden_layers) return config;
  config.source.set("num_hidden_layers", config.num_hidden_layers);
  for (const char* key : kListsOfLayers) {
    const Json* list = base.source.find(key);
    if (!list || !list->is_array() || static_cast<int64_t>(list->items().size()) != base.num_hidden_layers) continue;
    Json kept = Json::array();
    for (const BaseLayer& layer : layers) kept.push_back(list->items()[static_cast<size_t>(layer.original)]);
    config.source.set(key, kept);
  }
  return config;
}

std::vector<WeightSpec> weight_specs(const ModelConfig& base, std::span<const BaseLayer> layers) {
  std::map<std::pair<int, Part>, std::string> names;
  for (const WeightSpec& spec : weight_specs(base)) names[{spec.layer, spec.part}] = spec.name;
  std::vector<WeightSpec> specs;
  for (WeightSpec& spec : weight_specs(config_of_layers(base, layers))) {
    if (spec.layer >= 0) {
      const BaseLayer& layer = layers[static_cast<size_t>(spec.layer)];
      if (!(half_of(spec.part) == BlockHalf::mlp ? layer.has_mlp : layer.has_attention)) continue;
      if (const std::string& name = names.at({layer.original, spec.part}); name != spec.name) spec.source = name;
    }
    specs.push_back(std::move(spec));
  }
  return specs;
}

}  // namespace tessera
