// In place of the engine, where libnats was not there when the program was built.

#include "core/error.h"
#include "steplog/nats_engine.h"

namespace tessera {

bool has_nats() { return false; }

std::unique_ptr<LogEngine> make_nats_engine(const NatsSettings&, const std::string&) {
  throw UserError(spsa_key("transport"), "this trainer was built without NATS",
                  "install libnats-dev and build again, or use \"file\" or \"mpi\"");
}

}  // namespace tessera
