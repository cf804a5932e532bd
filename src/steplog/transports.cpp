// The list of transports.

#include "steplog/transport.h"

namespace tessera {

const std::vector<Transport>& transports() {
  static const std::vector<Transport> list = {
      mpi_transport(),
      file_transport(),
  };
  return list;
}

}  // namespace tessera
