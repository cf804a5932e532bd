#pragma once
#include "model/sharing/base.h"
#include "model/sharing/rps_plan.h"

namespace tessera {

/// Stable-RPS (Desai & Shrivastava, ICLR 2024): every weight of the shared tensors is read from one pool of m numbers,
///   W[i] = s(i) · λ_k · ψ[h(i)],   h: RandomFold (kernels/fold_address.h),  λ_k = σ_k / σ_0
/// held in isometric coordinates φ = sqrt(D) · ψ, D_j = Σ λ² over the readers of cell j:
///   W[i] = s(i) · (λ_k / sqrt(D)) · φ[h(i)]
/// so that the pool's plain gradient is the dense one projected onto the shared subspace: clipping, SGD, AdamW, decay and SPSA are
/// the ordinary ones. AdamW's steps are multiplied by Σ|λ| / sqrt(D) with kappa = "unit". Memory a weight: none.
std::unique_ptr<BaseSharing> make_rps(const SharingConfig&, const std::string& where);

/// m = floor(N / compression), or config.pool. @throws UserError when there is nothing to share, or no cell
int64_t rps_cells(const SharingConfig&, int64_t weights, const std::string& where);

/// Numbers of the specs whose storage is shared, one a storage. @throws UserError for a name that matches nothing, or tensors that
/// cannot be shared
std::vector<int> shared_specs(std::span<const WeightSpec>, const SharingConfig&, const std::string& where);

/// @throws UserError when train.freeze names a tensor that is read from a pool which is trained
void require_trained_alike(std::span<const WeightSpec> shared, const BaseOptions&, const SharingConfig&,
                           const std::string& where);

/// The standard deviation of a tensor's first values.
double deviation_of(const Init&);

}  // namespace tessera
