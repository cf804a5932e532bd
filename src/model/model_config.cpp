#include "model/model_config.h"

#include "core/error.h"
#include "io/json_file.h"

namespace tessera {

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

}  // namespace tessera
