// Collectives on views, for devices whose memory a communicator cannot read: the elements go through the host.

#include "comm/communicator.h"
#include "core/device/memory.h"

namespace tessera {

void Communicator::all_reduce_sum_view(const TensorView& values) {
  const EditedOnHost host(values);
  all_reduce_sum(host.as<float>());
}

void Communicator::reduce_scatter_sum_view(const TensorView& values, const Parts& parts) {
  const EditedOnHost host(values);
  reduce_scatter_sum(host.as<float>(), parts);
}

void Communicator::all_gather_parts_view(const TensorView& values, const Parts& parts) {
  const EditedOnHost host(values);
  all_gather_parts(host.as<float>(), parts);
}

}  // namespace tessera
