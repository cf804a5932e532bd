// The list of transports. Each is made in its own file.

#include "steplog/transport.h"

namespace tessera {

Transport mpi_transport();
Transport file_transport();
Transport nats_transport();

const std::vector<Transport>& transports() {
  static const std::vector<Transport> list = {
      mpi_transport(),
      file_transport(),
      nats_transport(),
  };
  return list;
}

}  // namespace tessera
