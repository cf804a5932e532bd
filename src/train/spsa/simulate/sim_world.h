#pragma once
// What all nodes of a simulation share.

#include <filesystem>
#include <map>
#include <unordered_set>

#include "steplog/control_message.h"
#include "train/spsa/simulate/shared_replica.h"
#include "train/spsa/simulate/sim_losses.h"
#include "train/spsa/simulate/simulate_config.h"
#include "train/spsa/simulate/star.h"
#include "train/spsa/spsa_config.h"

namespace tessera {

/// Digests of nodes against that of the shared replica behind the same rounds.
class DigestComparison {
 public:
  /// Of the shared replica, which is the first to apply a record.
  void expect(uint32_t round, const StateDigest& digest) { expected_[round] = digest; }
  /// Of a node. @return whether it is equal
  bool compare(uint32_t round, const StateDigest& digest);
  int64_t compared() const { return compared_; }
  int64_t different() const { return different_; }

 private:
  std::map<uint32_t, StateDigest> expected_;  // by round
  int64_t compared_ = 0, different_ = 0;
};

/// All outlive the simulation.
struct SimInputs {
  const Context& ctx;
  const SimulateConfig& config;
  const SpsaConfig& spsa;   // as of nodes at a server: transport = "nats"
  const RunHeader& header;  // of format 2
  const FlatParams& start;  // w_0
  SimLosses& losses;
  std::filesystem::path folder;  // of the run; node 0 keeps its log there
};

struct SimWorld {
  SimWorld(const SimInputs&, int64_t nodes);

  bool is_whole(uint32_t place) const { return whole.contains(place); }
  bool is_hostile(uint32_t place) const { return hostile.contains(place); }
  /// A number that no machine has had. @param key  of the draws; several are made when one was used
  uint32_t draw_number(uint64_t key);
  /// A vote as that machine sends it. @param state  digest of the weights behind so many rounds
  Vote vote_of(uint32_t place, uint32_t machine, uint32_t round, uint8_t lag, const Measured&) const;
  bool digest_due(uint32_t round) const;
  /// Whether whole nodes' weights are compared behind so many rounds.
  bool compares_behind(uint32_t round) const { return digest_due(round) || round == rounds(); }
  bool measures_ahead(uint32_t round) const;
  /// From the first probe of a round to the last.
  SimTime time_to_measure() const;
  /// Between two moments at which a node that measures looks at what has come.
  SimTime time_of_probe() const;
  uint32_t rounds() const { return static_cast<uint32_t>(in.header.terms->rounds); }

  SimInputs in;
  RunId run;
  EventQueue queue;
  Star star;
  SharedReplica shared;
  DigestComparison digests;
  std::unordered_set<uint32_t> whole, hostile;  // places
  std::vector<SimTime> catch_up;                // of newcomers, from coming to their first vote

 private:
  std::unordered_set<uint32_t> numbers_;
};

/// One in a place, until it leaves or is killed: what it would do later does not happen then.
class SimNode {
 public:
  SimNode(SimWorld& world, uint32_t place, uint64_t life);
  virtual ~SimNode();
  SimNode(const SimNode&) = delete;

  virtual void leave() = 0;
  /// Its log has the run's END.
  virtual bool has_ended() const { return true; }
  uint64_t life() const { return life_; }

 protected:
  void later(SimTime at, EventQueue::Kind, std::function<void()>);
  std::string name() const;  // at the server
  uint64_t number_key() const;
  void note_vote();

  SimWorld& world_;
  const uint32_t place_;
  const uint64_t life_;  // the first in a place is 0
  const SimTime came_;

 private:
  bool has_voted_ = false;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

std::unique_ptr<SimNode> make_whole_node(SimWorld&, uint32_t place, uint64_t life);
std::unique_ptr<SimNode> make_light_node(SimWorld&, uint32_t place, uint64_t life);

}  // namespace tessera
