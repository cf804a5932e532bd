#pragma once
// Catching up: a process that starts brings its log and its replica to where the run is.

#include <cstring>

#include "comm/communicator.h"
#include "steplog/log_engine.h"
#include "train/spsa/rounds.h"

namespace tessera {

/// A plain value of one rank, on every rank.
template <class T> T broadcast_value(Communicator& world, const T& value, int root) {
  std::vector<std::byte> bytes(sizeof(T));
  std::memcpy(bytes.data(), &value, sizeof(T));
  world.broadcast(bytes, root);
  T told;
  std::memcpy(&told, bytes.data(), sizeof(T));
  return told;
}

/// What a process holds of a run. All outlives the call that it is given to.
struct Replicated {
  const Context& ctx;
  Communicator& world;
  Replica& replica;
  StepLog* log;                     // null: another rank of this node keeps it
  std::filesystem::path snapshots;  // empty: this rank has none
};

/// Ranks of one job: the longest log counts. The others take what they lack, and all take the state it leads to.
/// @return where the chain stands, on every rank
ChainTip catch_up_with_ranks(const Replicated&);

/// Processes of one host: my log takes what the shared one has more, and the other way round.
/// @param shared  the folder that `engine` works in, for messages
ChainTip catch_up_with_folder(const Replicated&, LogEngine& engine, const std::filesystem::path& shared);

}  // namespace tessera
