#pragma once
// Every registered way to hold weights or their deltas, for tests of what all of them have in common:
// a method that is registered is tested.

#include <ostream>

#include "support/folds.h"
#include "support/tiny_model.h"

namespace tessera::test {

struct WeightMethod {
  std::string name;
  bool is_adapter = false;  // of [adapter]; else of [sharing]
};
inline void PrintTo(const WeightMethod& method, std::ostream* out) { *out << method.name; }

/// "none" is the ordinary model.
inline std::vector<WeightMethod> weight_methods() {
  std::vector<WeightMethod> all;
  for (const SharingMethod& method : sharing_methods()) all.push_back({std::string(method.name), false});
  for (const AdapterMethod& method : adapter_methods()) all.push_back({std::string(method.name), true});
  return all;
}

/// What a way to share needs beside the keys of its section: a plan, of a folded model.
inline Model::Settings with_plan(Model::Settings settings) {
  if (settings.sharing.method != "fold") return settings;
  const ModelConfig config = read_model_config(settings.model.path / "config.json");
  fold_by({.plan = any_fold_plan(config.num_hidden_layers), .state = {}}, settings);
  return settings;
}

/// The settings, of a model that trains by the method: shared weights in a third of their numbers, adapters of rank 2.
inline Model::Settings trained_by(const WeightMethod& method, Model::Settings settings) {
  settings.train_base = !method.is_adapter;
  settings.adapter.method = method.is_adapter ? method.name : "none";
  settings.adapter.rank = 2;
  settings.sharing.method = method.is_adapter ? "none" : method.name;
  settings.sharing.compression = 3;
  settings.sharing.min_numel = 0;
  return with_plan(std::move(settings));
}

inline const auto name_of_method = [](const auto& info) { return info.param.name; };

}  // namespace tessera::test
