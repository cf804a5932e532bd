// The list of estimators. Each is made in its own file.

#include "train/estimator.h"

namespace tessera {

std::unique_ptr<Estimator> make_backprop();
std::unique_ptr<Estimator> make_spsa();

const std::vector<EstimatorKind>& estimator_kinds() {
  static const std::vector<EstimatorKind> kinds = {
      {"backprop", "a forward and a backward pass", make_backprop},
      {"spsa", "two forward passes a probe and one byte a gradient, see [spsa]", make_spsa},
  };
  return kinds;
}

}  // namespace tessera
