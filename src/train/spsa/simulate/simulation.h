#pragma once
// A run of many loose nodes by simulated time, in one thread: a function of the recipe, the number of nodes and
// simulate.seed. Up to eight nodes are the program's own, with the real packer and logs; the others are a few numbers
// each. Model: docs/loose_nodes.md.

#include "core/json.h"
#include "train/spsa/simulate/sim_world.h"

namespace tessera {

/// What became of it.
struct SimReport {
  int64_t nodes = 0, rounds = 0;
  double simulated_seconds = 0;
  int64_t votes = 0;                                 // in the log, a byte each (of float32 votes four)
  int64_t bytes_up = 0, bytes_down = 0;              // at the server
  int64_t joins = 0, leaves = 0, kills = 0;          // joins: newcomers in the places of those that went
  double catch_up_median = 0, catch_up_largest = 0;  // seconds from coming to the first vote, of newcomers that voted
  int64_t caught_up = 0;                             // how many these are
  int64_t stale_groups = 0, lanes_given_anew = 0, conflicts = 0, reseeds = 0;
  double loss_first = 0, loss_last = 0;  // means that records tell; NaN: none does
  int64_t compared = 0, divergence = 0;  // digests of whole nodes with the shared replica's, and how many differed
  std::string digest;                    // of the last weights

  /// simulate.json, but for the seconds that it took and for what the losses are of.
  Json json() const;
};

/// @param say  told how far it is, every few seconds of real time; may be empty
/// @throws UserError when no record comes any more
SimReport simulate(const SimInputs&, const std::function<void(const std::string&)>& say = {});

}  // namespace tessera
