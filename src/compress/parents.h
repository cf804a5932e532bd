#pragma once
// How far blocks are from one another, and the weights of groups that have none of a block's own.
//
// A distance of weights W and W' counts an input channel by what flows through it: its second moment over calibration
// tokens, a diagonal Sigma,
//   ||(W - W') Sigma^(1/2)||_F² = sum over channels j of sigma[j] · sum over outputs i of (W_ij - W'_ij)².

#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "model/weights.h"

namespace tessera {

/// Sums of squares of the inputs of a block's linears over the calibration tokens, by channel.
struct InputMoments {
  std::vector<double> attention;  // of q, k and v   [hidden]
  std::vector<double> o;          // [query width]
  std::vector<double> mlp;        // of gate and up  [hidden]
  std::vector<double> down;       // [mlp width]

  /// Of a linear's part.
  const std::vector<double>& of(Part) const;
};
/// Each at least 1e-6 of its vector's mean, so that no channel is without weight; ones where all are zero.
InputMoments floored(InputMoments);

/// A block's linears as planning sees them.
struct FoldBlock {
  struct Linear {
    std::string type;  // path inside the block
    Part part;
    ConstView weight;  // [out, in] f32, bf16 or f16
  };
  std::vector<Linear> linears;  // of blocks that are compared: the same types in the same order
  InputMoments moments;         // floored
};

/// What is lost when the child reads the parent's weights: the sum over its linears of
/// ||(W_child - W_parent) Sigma_child^(1/2)||_F².
double delta_of(const FoldBlock& child, const FoldBlock& parent);
/// What that is relative to: the sum over its linears of ||W Sigma^(1/2)||_F².
double magnitude_of(const FoldBlock&);

/// The mean of weights of one shape.  [out, in] of `dtype`, each element summed in f64 in their order
Tensor mean_weight(std::span<const ConstView> weights, DType dtype);
/// Their mean, weighted by column:  sum over c of sigma_c[j] W_c[:, j] / sum over c of sigma_c[j].
/// It is the W that makes the sum over c of ||(W_c - W) Sigma_c^(1/2)||_F² least.
/// @param sigmas  [weights][in], above 0
Tensor weighted_mean_weight(std::span<const ConstView> weights, std::span<const std::span<const double>> sigmas,
                            DType dtype);

}  // namespace tessera
