#include "model/sharing/depth.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/decimal.h"
#include "core/error.h"
#include "model/sharing/binding.h"
#include "model/sharing_io.h"

namespace tessera {
namespace {

class Depth final : public BaseSharing {
 public:
  Depth(const SharingConfig& config, KeyPlaces where) : config_(config), where_(std::move(where)) {}

  std::vector<Weight> bind(std::span<const WeightSpec> specs, ParameterPool& pool,
                           const BaseOptions& options) override {
    for (const WeightSpec& spec : specs) layers_ = std::max<int64_t>(layers_, spec.layer + 1);
    blocks_ = depth_blocks(config_, layers_, where_);
    if (options.source && blocks_ < layers_)
      throw UserError(where_.of({"blocks", "method"}),
                      "depth: starts from random weights: stored ones differ from layer to layer",
                      "set model.init = \"random\", or sharing.blocks to the number of layers");
    if (options.saved) options.saved->require_same(descriptor());
    std::map<std::string, SlotId> slots;
    std::vector<Weight> weights;
    for (const WeightSpec& spec : specs) {
      const WeightSpec& first = first_of(spec);
      require_trained_alike(spec, first, options);
      auto found = slots.find(first.storage);
      if (found == slots.end()) {
        found = slots.emplace(first.storage, bind_own_slot(first, pool, options)).first;
        held_ += first.shape.count();
      }
      if (spec.storage == spec.name) weights_ += spec.shape.count();
      layers_of_[first.storage].push_back(spec.layer);
      weights.push_back({std::make_shared<SliceView>(pool, found->second, spec.shape)});
    }
    return weights;
  }

  Json descriptor() const override {
    return Json::object().set("method", "depth").set("version", 1).set("layers", layers_).set("blocks", blocks_);
  }

  std::vector<std::string> notes() const override {
    return {fmt::format("depth: {} layers read {} blocks: {} numbers in all, {:.4g}x fewer than weights", layers_,
                        blocks_, held_, static_cast<double>(weights_) / static_cast<double>(held_))};
  }

  std::string readers(const std::string& slot, int64_t index) const override {
    const auto found = layers_of_.find(slot);
    if (found == layers_of_.end() || found->second.size() < 2) return BaseSharing::readers(slot, index);
    return fmt::format("{}, read by layers {} to {}", BaseSharing::readers(slot, index), found->second.front(),
                       found->second.back());
  }

 private:
  /// That of the first layer that reads the same block; outside blocks, and for norms, itself.
  const WeightSpec& first_of(const WeightSpec& spec) {
    if (spec.layer < 0 || spec.role != Role::linear) return spec;
    const WeightSpec& first = firsts_.try_emplace({spec.type, spec.layer * blocks_ / layers_}, spec).first->second;
    TS_CHECK(first.shape == spec.shape, "{} is {}, {} is {}", spec.name, spec.shape.text(), first.name,
             first.shape.text());
    return first;
  }

  void require_trained_alike(const WeightSpec& spec, const WeightSpec& first, const BaseOptions& options) const {
    if (is_trained(spec, options) == is_trained(first, options)) return;
    throw UserError(
        where_.section(),
        fmt::format("depth: of '{}' and '{}', which are one, train.freeze names one", first.storage, spec.storage),
        "freeze both, or none");
  }

  SharingConfig config_;
  KeyPlaces where_;
  int64_t layers_ = 0, blocks_ = 0, held_ = 0, weights_ = 0;
  std::map<std::pair<std::string, int64_t>, WeightSpec> firsts_;
  std::map<std::string, std::vector<int>> layers_of_;  // by slot
};

}  // namespace

int64_t depth_blocks(const SharingConfig& config, int64_t layers, const KeyPlaces& where) {
  if (config.blocks && *config.blocks > layers)
    throw UserError(where.of("blocks"), fmt::format("depth: {} blocks for {} layers", *config.blocks, layers),
                    fmt::format("sharing.blocks may be 1 .. {}", layers));
  if (config.blocks) return *config.blocks;
  const auto rounded = [&] { return std::min(std::round(static_cast<double>(layers) / config.compression), 0x1p62); };
  const int64_t wanted = config.rules == Rules::first ? static_cast<int64_t>(rounded())
                                                      : quotient_of(layers, config.compression, Rounding::nearest);
  return std::clamp<int64_t>(wanted, 1, layers);
}

std::unique_ptr<BaseSharing> make_depth(const SharingConfig& config, const KeyPlaces& where) {
  return std::make_unique<Depth>(config, where);
}

}  // namespace tessera
