#pragma once
// A family's weights, one after another, under Hugging Face's names: "model.layers.3.self_attn.q_proj.weight".

#include <string>
#include <vector>

#include "model/model_config.h"

namespace tessera {

/// Numbers follow the order of calls. A family's never change: they key dropout and order fingerprints.
class SpecList {
 public:
  explicit SpecList(const ModelConfig& config) : config_(config) {}

  /// Outside blocks, under its whole name.
  void embedding(const std::string& name);
  void final_norm(const std::string& name);
  /// The output projection; tied to the embedding where the config says so.
  void head(const std::string& name);
  /// In a block. @param type  path inside it: "self_attn.q_proj"
  void linear(int layer, const std::string& type, Part, Shape);
  void norm(int layer, const std::string& type, Part);                // as wide as the residual
  void norm(int layer, const std::string& type, Part, int64_t size);  // of q or k: head_dim, or their whole width
  void bias(int layer, const std::string& type, Part, int64_t size);

  std::vector<WeightSpec> take() { return std::move(list_); }

 private:
  void add(const std::string& name, const std::string& type, int layer, Role, Part, Shape, Init::Kind);
  const ModelConfig& config_;
  std::vector<WeightSpec> list_;
};

}  // namespace tessera
