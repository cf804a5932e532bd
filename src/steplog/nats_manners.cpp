#include "steplog/nats_engine.h"
#include "steplog/transport.h"

namespace tessera {

// Known in programs without libnats, too: it says what a recipe may ask for.
LogEngine::Manners nats_manners() {
  return {.who_packs = LogEngine::Manners::Packer::first_there,
          .total_order = LogEngine::Manners::Order::one_log,
          .stop_in_votes = false,
          .catch_up = LogEngine::Manners::CatchUp::from_log,
          .bytes_of_message = 0};
}

Transport nats_transport() {
  return {.name = "nats",
          .help = "machines anywhere that reach one NATS server",
          .manners = nats_manners(),
          .processes = Transport::Processes::find_each_other,
          // Who takes part is the roster's to say, and changes: a machine counts for itself.
          .join = [](const Standing&) { return fixed_membership(0, 1); },
          .make = [](const EngineInputs& in) { return make_nats_engine(in.nats, in.header_json); }};
}

}  // namespace tessera
