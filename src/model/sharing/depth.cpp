#include "model/sharing/depth.h"

#include <algorithm>
#include <cmath>

#include "core/decimal.h"
#include "core/error.h"
#include "model/sharing/binding.h"
#include "model/sharing/layer_groups.h"
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
    grouped_ = {LayerGroups::of(depth_plan(layers_, blocks_, "")), "depth"};
    // Slots are called as the first layer that reads them has them: by these names values are drawn and saved.
    return grouped_.bind(
        specs, pool, options, [](const WeightSpec& kept) { return kept.storage; },
        [&](const std::string&, const WeightSpec& kept) { return bind_own_slot(kept, pool, options); });
  }

  Json descriptor() const override {
    return Json::object().set("method", "depth").set("version", 1).set("layers", layers_).set("blocks", blocks_);
  }

  std::vector<std::string> notes() const override {
    return {fmt::format("depth: {} layers read {} blocks: {} numbers in all, {:.4g}x fewer than weights", layers_,
                        blocks_, grouped_.held(),
                        static_cast<double>(grouped_.weights()) / static_cast<double>(grouped_.held()))};
  }

  std::string readers(const std::string& slot, int64_t index) const override {
    const std::span<const int> layers = grouped_.readers(slot);
    if (layers.size() < 2) return BaseSharing::readers(slot, index);
    return fmt::format("{}, read by layers {} to {}", BaseSharing::readers(slot, index), layers.front(), layers.back());
  }

 private:
  SharingConfig config_;
  KeyPlaces where_;
  int64_t layers_ = 0, blocks_ = 0;
  GroupedWeights grouped_{{}, "depth"};
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
