#pragma once
// The distribution that a token is drawn from: a softmax, cut to its likelier part.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/front.h"
#include "infer/request.h"

namespace tessera {

/// softmax(values / temperature) of the tokens whose value is not −∞, and its cuts. Behind each cut the probabilities
/// p of the tokens that stay are normalised again:
///   top_k      the k heaviest, exactly k
///   top_p      heaviest first, the shortest front with Σ p >= top_p
///   min_p      p >= min_p · max p
///   typical_p  with H = −Σ p ln p, in the order of abs(−ln p − H), the shortest front with Σ p >= typical_p
/// Holtzman et al. 2020, arXiv:1904.09751 (top_p); Meister et al. 2022, arXiv:2202.00666 (typical_p).
///
/// Weights are w = exp(x) with x = (value − maximum) / temperature, and p = w / Σ w, a sum in ascending id. The heavier
/// of two tokens is the one with the larger x, of equal ones the one with the lower id. Since −ln p − H = Σ p x − x, no
/// logarithm is formed. Scratch is kept from call to call.
class Distribution {
 public:
  /// @param values  [vocab], f64 logits or −∞
  /// @returns whether there is a token, that is, a value above −∞
  bool assign(std::span<const double> values, const Sampling&);

  /// In ascending id, the first token whose running Σ p exceeds `uniform`, which is in [0, 1).
  int32_t draw(double uniform) const;

  /// The tokens that are left, in ascending id, and their weights.
  std::span<const int32_t> ids() const { return ids_; }
  std::span<const double> weights() const { return weights_; }

 private:
  void collect(std::span<const double> values);
  void weigh(double temperature);
  void keep_top_k(int64_t k);
  void keep_top_p(double share);
  void keep_min_p(double share);
  void keep_typical(double share);
  template <class Stays> void keep(const Stays& stays);

  std::vector<int32_t> ids_;
  std::vector<double> x_, weights_, keys_;  // [ids]
  FrontSearch fronts_;
};

}  // namespace tessera
