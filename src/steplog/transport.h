#pragma once
// The transports that a recipe can name. One file each, with the engine and all that has to be known of it;
// transports.cpp lists them.

#include <string>
#include <string_view>
#include <vector>

#include "steplog/log_engine.h"
#include "steplog/membership.h"
#include "steplog/nats_settings.h"

namespace tessera {

/// What engines are made of.
struct EngineInputs {
  Communicator& world;           // of this process's job
  std::filesystem::path folder;  // that the processes of a run share; empty: none
  std::string header_json;       // of the run: the first process makes the log with it, the others must have the same
  uint64_t log_size = 0;         // records that this machine holds already, as do all others
  NatsSettings nats{};           // of machines that find each other at a server
};

struct Transport {
  std::string_view name, help;
  LogEngine::Manners manners;
  enum class Processes { ranks_of_a_job, share_a_folder, find_each_other };
  /// ranks_of_a_job: a launcher starts and numbers them. share_a_folder: each is started by itself, as one rank, is
  /// told its number by the recipe (spsa.machine, spsa.machines), keeps a run folder of its own,
  /// and finds the others in a folder of the host (spsa.shared). find_each_other: each is started by itself, where it
  /// is, and knows of the others by the log alone; they come and go, and the roster says who takes part.
  Processes processes;
  // From a process's standing in its job or recipe to its machine's number.
  std::unique_ptr<Membership> (*join)(const Standing&);
  /// @throws UserError when the folder holds the log of another run
  std::unique_ptr<LogEngine> (*make)(const EngineInputs&);

  bool shares_folder() const { return processes == Processes::share_a_folder; }
  bool is_loose() const { return processes == Processes::find_each_other; }
};
const std::vector<Transport>& transports();

/// By its name in a recipe; "auto" is the first of the list.
const Transport& transport_named(const std::string& name);
/// What a recipe may say, "auto" among it, and what that means.
std::vector<std::string> transport_choices();
std::string transport_help();

}  // namespace tessera
