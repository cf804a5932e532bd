#include "steplog/nats_engine.h"

namespace tessera {

// Known in programs without libnats, too: it says what a recipe may ask for.
LogEngine::Manners nats_manners() {
  return {.who_packs = LogEngine::Manners::Packer::first_there,
          .total_order = LogEngine::Manners::Order::one_log,
          .stop_in_votes = false,
          .catch_up = LogEngine::Manners::CatchUp::from_log,
          .bytes_of_message = 0};
}

}  // namespace tessera
