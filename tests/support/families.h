#pragma once
// Every registered family of models, for tests of what all of them have in common: a family that is registered is
// tested. Their config.json is read in Llama's words; keys that only one family has are left at their defaults.

#include "support/tiny_model.h"

namespace tessera::test {

inline std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const ModelFamily& family : model_families()) names.emplace_back(family.name);
  return names;
}

/// Settings of a drawn model of that family; its config.json is written into `folder`.
inline Model::Settings family_settings(const std::string& family, const std::filesystem::path& folder,
                                       const TinyConfig& config = {}) {
  std::filesystem::create_directories(folder);
  Model::Settings settings = tiny_settings(folder, config);
  write_file(folder / "config.json", to_json(config).set("model_type", family).dump(2));
  settings.train_base = true;
  return settings;
}

/// Gives norms and biases, which begin as ones and zeros, values that show in every result.
inline void draw_norms_and_biases(Model& model, uint32_t seed) {
  for (const WeightSpec& spec : model.decoder().specs()) {
    if (spec.role != Role::norm && spec.role != Role::bias) continue;
    const TensorView values = slot_of(model.pool(), spec.name);
    fill_normal(values, seed++, 0.3);
    const double middle = spec.role == Role::norm ? 1 : 0;
    if (values.dtype == DType::f64)
      for (double& x : values.as<double>()) x += middle;
    else
      for (float& x : values.as<float>()) x += static_cast<float>(middle);
  }
}

inline const auto name_of_family = [](const auto& info) { return info.param; };

}  // namespace tessera::test
