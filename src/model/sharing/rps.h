#pragma once
// Stable-RPS: a model of any size whose weights are read from one pool of fixed size.

#include "model/sharing/base.h"
#include "model/sharing/rps_plan.h"

namespace tessera {

/// Stable-RPS (Desai & Shrivastava, ICLR 2024): every weight of the shared tensors is read from one pool of m numbers,
///   W[i] = s(i) · λ_k · ψ[h(i)],   h: RandomFold (kernels/fold_address.h),  λ_k = σ_k / σ_0
/// held in isometric coordinates φ = sqrt(D) · ψ, D_j = Σ λ² over the readers of cell j:
///   W[i] = s(i) · (λ_k / sqrt(D)) · φ[h(i)]
/// so that the pool's plain gradient is the dense one projected onto the shared subspace: clipping, SGD, AdamW, decay
/// and SPSA are the ordinary ones. AdamW's steps are multiplied by Σ|λ| / sqrt(D) with kappa = "unit".
/// Memory a weight: none.
std::unique_ptr<BaseSharing> make_rps(const SharingConfig&, const KeyPlaces& where);

}  // namespace tessera
