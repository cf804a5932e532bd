#include "train/spsa/simulate/simulate_config.h"

namespace tessera {

void SimulateConfig::visit(Fields& v) {
  // As many as a record has lanes. Their votes, 255 bytes a lane at most, are far below the 2^32 bytes of its body.
  v("nodes", nodes, in_range(1, 65535), "machines that take part; the command line's --nodes", OnResume::free);
  v("latency_ms", latency_ms, in_range(0, 60000), "from a node to the server, or back: at least so long",
    OnResume::free);
  v("jitter_ms", jitter_ms, in_range(0, 60000), "and up to so much longer, drawn for each message", OnResume::free);
  v("loss", loss, in_range(0, 0.9),
    "share of messages that are lost: a vote is gone, all others are sent again 0.2 s later", OnResume::free);
  v("rate_mbit", rate_mbit, in_range(1e-6, 1e6), "of a node's link, in each direction: 10^6 bits a second",
    OnResume::free);
  v("forward_seconds", forward_seconds, in_range(0, 3600), "that a node takes for the loss at one point",
    OnResume::free);
  v("churn", churn, in_range(0, 1),
    "chance of each node in each round to leave or to be killed, one as likely as the other; a new one comes in its place",
    OnResume::free);
  v("hostile", hostile, in_range(0, 1), "share of nodes that turn the sign of all their votes", OnResume::free);
  v("rounds", rounds, in_range(1, 1e8), "of the run, in place of train.steps", OnResume::free);
  v("seed", seed, at_least(0), "of all that is drawn for links and nodes", OnResume::free);
}

}  // namespace tessera
