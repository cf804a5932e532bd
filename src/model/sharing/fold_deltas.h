#pragma once
// The low-rank deltas of a folded model: of its children (levels lora and mos), and of its cure.

#include "model/sharing/fold_slots.h"

namespace tessera {

/// Adds the children's deltas: none below level lora.
///   lora  y += (x Aᵀ) Bt for every linear of a child;  a [q, in], bt [q, out], q = min(rank, in, out)
///   mos   one MoS adapter of equivalent rank `rank` over the linears of all children
/// @param deltas  by weight number
/// @param where   of [sharing], for errors
void add_child_deltas(std::span<const WeightSpec>, const FoldPlan&, const FoldSlots&, const KeyPlaces& where,
                      AdapterWeights& deltas);

/// Adds the deltas that the cure trains, an adapter over all layers. @return the adapter's descriptor
Json add_cure(std::span<const WeightSpec>, const AdapterConfig&, const FoldSlots&, const KeyPlaces& where,
              AdapterWeights& deltas);

/// The adapter that such a descriptor is of. It drops nothing: what is trained above the model is trained on all of it.
/// @throws UserError for a descriptor that no adapter has
AdapterConfig cure_of(const Json& descriptor);

/// By layer: whether it is a child, which reads another block's weights.
std::vector<bool> children_of(const FoldPlan&);

}  // namespace tessera
