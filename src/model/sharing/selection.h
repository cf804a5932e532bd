#pragma once
// Which tensors share a pool, and how many numbers it has: the keys shared, min_numel, compression and pool of
// [sharing].

#include "model/sharing/base.h"

namespace tessera {

/// m = floor(N / compression), or config.pool. @throws UserError when there is nothing to share, or no cell
int64_t cells_of(const SharingConfig&, int64_t weights, const KeyPlaces& where);

/// Numbers of the specs whose storage is shared, one a storage. @throws UserError for a name that matches nothing, or
/// tensors that cannot be shared
std::vector<int> shared_specs(std::span<const WeightSpec>, const SharingConfig&, const KeyPlaces& where);

/// @throws UserError when train.freeze names a tensor that is read from a pool which is trained
void require_trained_alike(std::span<const WeightSpec> shared, const BaseOptions&, const SharingConfig&,
                           const KeyPlaces& where);

/// The standard deviation of a tensor's first values.
double deviation_of(const Init&);

/// 1234567 -> "1,234,567"
std::string grouped(int64_t number);

}  // namespace tessera
