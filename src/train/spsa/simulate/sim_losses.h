#pragma once
// What simulated machines find along their directions: on the recipe's model, or on a function that costs nothing.

#include <memory>

#include "train/spsa/voter.h"

namespace tessera {

class SimLosses {
 public:
  virtual ~SimLosses() = default;
  /// @param values  that the machine looks at: [trained numbers] f32
  virtual Measured measure(ConstView values, uint32_t round, int unit, uint32_t machine, uint32_t lane) = 0;
};

/// The recipe's voter on its model, whose trained values it writes over.
/// @param in     outlive it, with the prober on this model
std::unique_ptr<SimLosses> make_model_losses(const Voter::Inputs& in, Model&);

}  // namespace tessera
