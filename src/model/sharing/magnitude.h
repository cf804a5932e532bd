#pragma once
// Pruning by magnitude: what a pool of given size could have been spent on instead of sharing.

#include "model/sharing/base.h"

namespace tessera {

/// Magnitude pruning at the start (after Han et al. 2015, arXiv:1506.02626), for comparison: of the N weights of the
/// shared tensors the m of largest |w| in the dense model's first values (ties: the first) are kept and trained, the
/// others are 0 for good. The pool holds the kept weights in the order of their numbers; which they are takes two bits
/// a weight, beside the weights' own memory. Shares rps's keys: shared, min_numel, compression, pool.
/// A saved pool does not hold the mask, but the seed that it follows from.
std::unique_ptr<BaseSharing> make_magnitude(const SharingConfig&, const KeyPlaces& where);

}  // namespace tessera
