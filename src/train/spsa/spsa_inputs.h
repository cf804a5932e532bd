#pragma once
// What a training by one-byte SPSA is made of beside what every training has.

#include <memory>

#include "steplog/nats_settings.h"
#include "train/spsa/prober.h"
#include "train/spsa/run_header.h"
#include "train/spsa/seat.h"
#include "train/trainer_inputs.h"

namespace tessera {

/// What SPSA adds to a training's inputs.
struct SpsaInputs final : Preparation {
  RunHeader header;
  std::unique_ptr<Membership> members;
  std::filesystem::path shared;  // of processes that share a folder: that of the log
  std::unique_ptr<Prober> prober;
  std::unique_ptr<Seat> seat;        // of such a process: its number there
  NatsSettings nats;                 // of machines that find each other at a server
  std::function<void()> accepted{};  // called once the engine has taken the run's header: the folder is this run's now
};

/// A rank's copy of the run's log.
std::filesystem::path rank_log_folder(const std::filesystem::path& run_path, int rank);

/// @throws UserError naming the key for settings that do not go together
std::unique_ptr<Prober> make_prober(const SpsaConfig&, Model&);

/// What the model trains, in the header's words: the adapter's descriptor, or "all".
std::string selection_of(Model&);

/// The header of a run that starts with the model as it is.
/// @param base  hash of the frozen weights, or empty
/// @param rules  of the run, as it began
/// @param log   the run's log folder: when it has a header, what a later job may not choose anew (K, the parent)
///   is taken from there
RunHeader make_header(const SpsaConfig&, const TrainConfig&, const OptimizerConfig&, Model&, const std::string& base,
                      int machines, Rules rules, const std::filesystem::path& log, const Context&);

/// What a run trains, as its header names it.
struct HeaderSubject {
  const FlatParams& params;
  std::string base, selection;
};
/// The same for what is no model.
RunHeader make_header(const SpsaConfig&, const TrainConfig&, const OptimizerConfig&, const HeaderSubject&, int machines,
                      Rules rules, const std::filesystem::path& log, const Context&);

}  // namespace tessera
