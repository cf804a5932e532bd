#pragma once
// Configs of mixture of shards, and layers to adapt.

#include "core/error.h"
#include "model/sharing/mos.h"
#include "support/tiny_model.h"

namespace tessera::test {

inline AdapterConfig mos(int64_t e, std::optional<int64_t> r = {}, std::optional<int64_t> p = {}, int64_t l = 4) {
  AdapterConfig config;
  config.method = "mos";
  config.equivalent_rank = e;
  config.rank = r;
  config.private_rank = p;
  config.shards = l;
  return config;
}

inline WeightSpec linear_spec(int layer, const std::string& type, int64_t out, int64_t in) {
  const std::string name = fmt::format("layers.{}.{}.weight", layer, type);
  return {.name = name,
          .type = type,
          .layer = layer,
          .role = Role::linear,
          .shape = {out, in},
          .init = {},
          .storage = name};
}

inline std::vector<WeightSpec> layers_of(int layers, int64_t out, int64_t in) {
  std::vector<WeightSpec> specs;
  for (int k = 0; k < layers; ++k) specs.push_back(linear_spec(k, "self_attn.q_proj", out, in));
  return specs;
}

}  // namespace tessera::test
