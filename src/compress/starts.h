#pragma once
// What a child's own numbers start from, so that it computes nearly what its original weights did.
//
// A child reads  gain · W_parent + Btᵀ A  where its original was W_child. Both starts make the loss on calibration
// inputs least: ||(W_child - ..) Sigma^(1/2)||_F², Sigma the diagonal of the child's input moments (parents.h).

#include <span>

#include "core/tensor.h"

namespace tessera {

/// The gain of each output channel, by least squares:
///   gain[i] = <W_child[i], W_parent[i]>_Sigma / <W_parent[i], W_parent[i]>_Sigma,   1 where the denominator is 0,
/// with <x, y>_Sigma = sum over j of sigma[j] x_j y_j.
/// @param child, parent  [out, in] of any floating dtype
/// @param sigma          [in], above 0
/// @return [out] f32
Tensor scale_start(const ConstView& child, const ConstView& parent, std::span<const double> sigma);

struct LowRankStart {
  Tensor a;           // [rank, in] f32
  Tensor bt;          // [rank, out] f32
  double error = 0;   // ||(E - Btᵀ A) Sigma^(1/2)||_F², before rounding to f32: the squares of the singular values
                      // that were left out, summed
  double before = 0;  // ||E Sigma^(1/2)||_F²
};

/// The delta of a rank that comes nearest to E = W_child - gain · W_parent:
///   U S Vᵀ = svd(E · diag(sigma)^(1/2)),   A = S_q^(1/2) V_qᵀ diag(sigma)^(-1/2),   Bt = (U_q S_q^(1/2))ᵀ.
/// The singular vectors of the shorter side are the eigenvectors of the Gram matrix; those of the longer side, and S,
/// come from the projection of E on them. So the error is that of an orthogonal projection, and at full rank nothing
/// but rounding, although small singular values of a Gram matrix have lost their digits. Rows behind the rank that E
/// can have are zeros. About 10 · out · in · min(out, in) operations in f64.
/// @param gain  [out] f32, or empty: 1
/// @throws UserError when E is not finite. @param what  names child and linear in it
LowRankStart low_rank_start(const ConstView& child, const ConstView& parent, const ConstView& gain,
                            std::span<const double> sigma, int64_t rank, const std::string& what);

}  // namespace tessera
