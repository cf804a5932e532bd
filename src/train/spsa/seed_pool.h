#pragma once
// The state of spsa.directions = "pool": one exact sum for each of K fixed directions, from which the weights follow.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/votes.h"
#include "model/parameter_pool.h"

namespace tessera {

/// S_k = Σ value · fix(alpha) over the votes for direction k, in steps of 2^-48;
/// w = w_0 + 2^-48 · step scale · Σ_k S_k z_k.
/// Sums are of integers in 64 bits, so that their order does not show, and w follows from w_0 and the K sums alone.
class SeedPool {
 public:
  /// @param directions  K
  /// @param params      w_0 on entry; write_values changes them
  SeedPool(uint64_t seed, int64_t directions, FlatParams& params);

  /// Adds a group of votes whose samples are numbers of directions. The weights stay as they are until write_values.
  /// @return whether alpha and every S_k fit into their 64 bits; if not, the state is of no more use
  [[nodiscard]] bool add(const Context&, const VoteGroup&);
  void write_values() const;

  std::span<const int64_t> sums() const { return sums_; }  // S_k
  /// Takes the sums of another replica, and writes the weights that they lead to.
  void restore(std::vector<int64_t> sums);
  int64_t state_bytes() const;

 private:
  bool add_to_sums(int64_t alpha, std::span<const VoteTerm>);
  void add_to_weights(const Context&, int64_t alpha, const VoteGroup&);

  uint64_t seed_;
  FlatParams& params_;
  std::vector<float> start_;       // w_0
  std::vector<int64_t> sums_;      // S_k
  std::vector<int64_t> weighted_;  // Σ_k S_k z_k, one a weight
};

}  // namespace tessera
