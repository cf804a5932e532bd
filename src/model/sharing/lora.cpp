#include "model/sharing/lora.h"

#include <cmath>
#include <set>

namespace tessera {
namespace {

class Lora final : public Adapter {
 public:
  Lora(const AdapterConfig& config, KeyPlaces where) : config_(config), where_(std::move(where)) {}

  AdapterWeights attach(std::span<const WeightSpec> specs, ParameterPool& pool, const ReserveSlot& reserve) override {
    const int64_t rank = config_.rank.value_or(8);
    AdapterWeights weights;
    weights.by_weight.resize(specs.size());
    types_.clear();
    for (const int i : match_targets(specs, config_.targets, where_, "lora")) {
      const int64_t in = specs[i].shape[1], out = specs[i].shape[0];
      types_.insert(specs[i].type);
      const std::string base = "lora." + specs[i].name.substr(0, specs[i].name.rfind(".weight"));
      const SlotId a =
          reserve(base + ".a",
                  {.shape = {rank, in}, .init = {Init::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(in)), {}}});
      const SlotId bt = reserve(base + ".bt", {.shape = {rank, out}, .init = {}});
      weights.by_weight[i].push_back({.a = std::make_shared<SliceView>(pool, a, Shape{rank, in}),
                                      .bt = std::make_shared<SliceView>(pool, bt, Shape{rank, out}),
                                      .scale = adapter_scale(config_, rank),
                                      .dropout = static_cast<float>(config_.dropout)});
    }
    return weights;
  }

  Json descriptor() const override {
    Json types = Json::array();
    for (const std::string& type : types_) types.push_back(type);
    return Json::object()
        .set("method", "lora")
        .set("version", 1)
        .set("rank", config_.rank.value_or(8))
        .set("alpha", config_.alpha)
        .set("scale", config_.scale)
        .set("dropout", config_.dropout)
        .set("types", types);
  }

 private:
  AdapterConfig config_;
  KeyPlaces where_;
  std::set<std::string> types_;
};

}  // namespace

std::unique_ptr<Adapter> make_lora(const AdapterConfig& config, const KeyPlaces& where) {
  return std::make_unique<Lora>(config, where);
}

}  // namespace tessera
