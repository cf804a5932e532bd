#include "model/parts.h"

#include "core/error.h"

namespace tessera {
namespace {

/// Which half of a block a part belongs to, and whether that half can do without.
enum class Of { attention, attention_optional, mlp, mlp_optional };

/// A part of a block or of the decoder, and its place there.
template <class Owner> struct Place {
  Part part;
  int Owner::*number;
};
struct BlockPlace : Place<BlockWeights> {
  Of of;
};

constexpr BlockPlace kBlockPlaces[] = {
    {{Part::input_norm, &BlockWeights::input_norm}, Of::attention},
    {{Part::q, &BlockWeights::q}, Of::attention},
    {{Part::k, &BlockWeights::k}, Of::attention},
    {{Part::v, &BlockWeights::v}, Of::attention},
    {{Part::o, &BlockWeights::o}, Of::attention},
    {{Part::q_bias, &BlockWeights::q_bias}, Of::attention_optional},
    {{Part::k_bias, &BlockWeights::k_bias}, Of::attention_optional},
    {{Part::v_bias, &BlockWeights::v_bias}, Of::attention_optional},
    {{Part::o_bias, &BlockWeights::o_bias}, Of::attention_optional},
    {{Part::q_norm, &BlockWeights::q_norm}, Of::attention_optional},
    {{Part::k_norm, &BlockWeights::k_norm}, Of::attention_optional},
    {{Part::mlp_norm, &BlockWeights::mlp_norm}, Of::mlp},
    {{Part::gate, &BlockWeights::gate}, Of::mlp},
    {{Part::up, &BlockWeights::up}, Of::mlp},
    {{Part::down, &BlockWeights::down}, Of::mlp},
    {{Part::gate_bias, &BlockWeights::gate_bias}, Of::mlp_optional},
    {{Part::up_bias, &BlockWeights::up_bias}, Of::mlp_optional},
    {{Part::down_bias, &BlockWeights::down_bias}, Of::mlp_optional},
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

void require_whole_halves(const BlockWeights& block, size_t layer) {
  TS_CHECK(block.has_attention() || block.has_mlp(), "layer {} has neither attention nor MLP", layer);
  for (const BlockPlace& place : kBlockPlaces) {
    const bool is_there = block.*place.number != kAbsent;
    const bool is_of_mlp = place.of == Of::mlp || place.of == Of::mlp_optional,
               is_optional = place.of == Of::attention_optional || place.of == Of::mlp_optional;
    const bool has_half = is_of_mlp ? block.has_mlp() : block.has_attention();
    TS_CHECK(is_there == has_half || (has_half && is_optional),
             "layer {} has a half of which a weight is missing, or a weight without its half", layer);
  }
}

}  // namespace

std::vector<BlockWeights> block_parts(const std::vector<WeightSpec>& specs) {
  std::vector<BlockWeights> blocks;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].layer < 0) continue;
    const auto layer = static_cast<size_t>(specs[i].layer);
    if (layer >= blocks.size()) blocks.resize(layer + 1);
    put(blocks[layer], kBlockPlaces, specs[i], static_cast<int>(i));
  }
  for (size_t layer = 0; layer < blocks.size(); ++layer) require_whole_halves(blocks[layer], layer);
  return blocks;
}

DecoderParts decoder_parts(const std::vector<WeightSpec>& specs) {
  DecoderParts parts;
  parts.blocks = block_parts(specs);
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].layer < 0) put(parts, kPlaces, specs[i], static_cast<int>(i));
  for (const auto& place : kPlaces)
    TS_CHECK(parts.*place.number != kAbsent, "a weight that every decoder has is missing");
  return parts;
}

}  // namespace tessera
