#include "model/parts.h"

#include "core/error.h"

namespace tessera {
namespace {

enum class Need { always, optional };

/// A part of a block or of the decoder, and its place there.
template <class Owner> struct Place {
  Part part;
  int Owner::*number;
  Need need = Need::always;
};

constexpr Place<BlockWeights> kBlockPlaces[] = {
    {Part::input_norm, &BlockWeights::input_norm},
    {Part::q, &BlockWeights::q},
    {Part::k, &BlockWeights::k},
    {Part::v, &BlockWeights::v},
    {Part::o, &BlockWeights::o},
    {Part::q_bias, &BlockWeights::q_bias, Need::optional},
    {Part::k_bias, &BlockWeights::k_bias, Need::optional},
    {Part::v_bias, &BlockWeights::v_bias, Need::optional},
    {Part::mlp_norm, &BlockWeights::mlp_norm},
    {Part::gate, &BlockWeights::gate},
    {Part::up, &BlockWeights::up},
    {Part::down, &BlockWeights::down},
};
constexpr Place<DecoderParts> kPlaces[] = {
    {Part::embedding, &DecoderParts::embedding},
    {Part::final_norm, &DecoderParts::final_norm},
    {Part::head, &DecoderParts::head},
};

template <class Owner, class Places> void put(Owner& owner, const Places& places, const WeightSpec& spec, int number) {
  for (const auto& place : places) {
    if (place.part != spec.part) continue;
    TS_CHECK(owner.*place.number == kAbsent, "{} is a second weight of its kind", spec.name);
    owner.*place.number = number;
    return;
  }
  TS_CHECK(false, "{} has no place in layer {}", spec.name, spec.layer);
}

template <class Owner, class Places> void require_all(const Owner& owner, const Places& places) {
  for (const auto& place : places)
    TS_CHECK(place.need == Need::optional || owner.*place.number != kAbsent,
             "a weight that every decoder has is missing");
}

}  // namespace

DecoderParts decoder_parts(const std::vector<WeightSpec>& specs) {
  DecoderParts parts;
  for (const WeightSpec& spec : specs)
    if (spec.layer >= static_cast<int>(parts.blocks.size())) parts.blocks.resize(static_cast<size_t>(spec.layer) + 1);
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].layer < 0)
      put(parts, kPlaces, specs[i], static_cast<int>(i));
    else
      put(parts.blocks[static_cast<size_t>(specs[i].layer)], kBlockPlaces, specs[i], static_cast<int>(i));
  }
  require_all(parts, kPlaces);
  for (const BlockWeights& block : parts.blocks) require_all(block, kBlockPlaces);
  return parts;
}

}  // namespace tessera
