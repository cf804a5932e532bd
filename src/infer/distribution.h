#pragma once
// The distribution that a token is drawn from: a softmax, cut to its likelier part.

#include <cstdint>
#include <span>
#include <vector>

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
/// of two tokens is the one with the larger x. Since −ln p − H = Σ p x − x, no logarithm is formed.
/// Scratch is kept from call to call.
class Distribution {
 public:
  struct Candidate {
    double x, weight;
    int32_t id;
  };

  /// @param values       [vocab], f64 logits or −∞, at least one of them finite
  /// @param temperature  above 0
  void assign(std::span<const double> values, const Sampling&);

  /// In ascending id, the first token whose running Σ p exceeds `uniform`, which is in [0, 1).
  int32_t draw(double uniform) const;

  /// The tokens that are left, in ascending id.
  std::span<const Candidate> candidates() const { return candidates_; }

 private:
  void keep_top_k(int64_t k);
  void keep_top_p(double share);
  void keep_min_p(double share);
  void keep_typical(double share);
  /// Larger keys first, the lower id first on a tie: keeps the shortest front that weighs `wanted`. It is known to end
  /// among those that weigh at least `lightest`.
  template <class Key> void keep_front(double wanted, double lightest, const Key& key);

  std::vector<Candidate> candidates_, heap_;
};

}  // namespace tessera
