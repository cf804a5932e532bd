#include "model/parts.h"

#include "core/error.h"

namespace tessera {
namespace {

int& place_of(DecoderParts& parts, Part part) {
  switch (part) {
    case Part::embedding:
      return parts.embedding;
    case Part::final_norm:
      return parts.final_norm;
    default:
      return parts.head;
  }
}

int& place_of(BlockWeights& block, Part part) {
  switch (part) {
    case Part::input_norm:
      return block.input_norm;
    case Part::q:
      return block.q;
    case Part::k:
      return block.k;
    case Part::v:
      return block.v;
    case Part::o:
      return block.o;
    case Part::mlp_norm:
      return block.mlp_norm;
    case Part::gate:
      return block.gate;
    case Part::up:
      return block.up;
    default:
      return block.down;
  }
}

}  // namespace

DecoderParts decoder_parts(const std::vector<WeightSpec>& specs) {
  DecoderParts parts;
  for (const WeightSpec& spec : specs)
    if (spec.layer >= static_cast<int>(parts.blocks.size())) parts.blocks.resize(static_cast<size_t>(spec.layer) + 1);
  for (size_t i = 0; i < specs.size(); ++i) {
    int& place = specs[i].layer < 0 ? place_of(parts, specs[i].part)
                                    : place_of(parts.blocks[static_cast<size_t>(specs[i].layer)], specs[i].part);
    TS_CHECK(place < 0, "{} is a second weight of its kind", specs[i].name);
    place = static_cast<int>(i);
  }
  const auto require = [](int place) { TS_CHECK(place >= 0, "a weight that every decoder has is missing"); };
  for (const int place : {parts.embedding, parts.final_norm, parts.head}) require(place);
  for (const BlockWeights& b : parts.blocks)
    for (const int place : {b.input_norm, b.q, b.k, b.v, b.o, b.mlp_norm, b.gate, b.up, b.down}) require(place);
  return parts;
}

}  // namespace tessera
