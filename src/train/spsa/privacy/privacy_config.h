#pragma once
// [privacy]: votes of one-byte SPSA that tell little of any one document.

#include "core/fields.h"

namespace tessera {

struct PrivacyConfig {
  std::optional<double> epsilon, noise;
  double delta = 1e-5, clip = 10;

  bool is_on() const { return epsilon.has_value(); }

  void visit(Fields& v) {
    v("epsilon", epsilon, above(0),
      "switches it on: the budget of each machine for the whole run; a vote that would pass it is not made");
    v("delta", delta, above(0, 0.5), "with it: the chance that the budget does not bound");
    v("clip", clip, above(0, 1e6), "largest slope of one document's loss");
    v("noise", noise, above(0, 1e6),
      "deviation of the noise, in clips; not given: the least that keeps all rounds within epsilon", OnResume::free);
  }
};

}  // namespace tessera
