#pragma once
// Sharing by depth: neighbouring layers read one block.

#include "model/sharing/base.h"

namespace tessera {

/// Depth sharing, for comparison: the L layers read B different blocks, layer l block floor(l · B / L), so that
/// neighbours share. Every linear of a block is one slot, called as that of its first layer; its gradient is the sum
/// over the layers that read it, last layer first. Norms, embedding and head are each layer's own.
/// B = L is the ordinary model, and the only B that takes stored weights.
std::unique_ptr<BaseSharing> make_depth(const SharingConfig&, const KeyPlaces& where);

/// B: config.blocks, or round(layers / compression) within 1 .. layers. @throws UserError for more blocks than layers
int64_t depth_blocks(const SharingConfig&, int64_t layers, const KeyPlaces& where);

}  // namespace tessera
