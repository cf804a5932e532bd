#pragma once
// RMSNorm with a weight of the network.

#include "model/weight_set.h"

namespace tessera {

/// y = x · inv_rms · w;  inv_rms [T] out
void norm(const Pass&, const WeightSet&, int weight, double eps, ConstView x, TensorView y, TensorView inv_rms);

/// dx += the gradient of x; the weight's gradient is added where it is trained.
void norm_backward(const Pass&, const WeightSet&, int weight, ConstView x, ConstView inv_rms, ConstView dy,
                   TensorView dx);

}  // namespace tessera
