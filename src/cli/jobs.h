#pragma once
// The jobs that a recipe can ask for, and what each of them gets.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/job_config.h"
#include "comm/communicator.h"
#include "core/data_share.h"
#include "data/data_source.h"
#include "train/checkpoint.h"

namespace tessera {

/// The checkpoint that run.resume names, for jobs that work with what it holds: opened once, by the first to ask.
struct NamedCheckpoint {
  std::filesystem::path file{};  // of a folder its newest
  std::optional<OpenedCheckpoint> opened{};
};

/// What every job gets.
struct JobInputs {
  const JobConfig& config;
  Recipe& recipe;
  Communicator& world;
  int threads;
  bool quiet = false, launched = false;
  DataShare share{};  // of the data, this rank's
  std::shared_ptr<NamedCheckpoint> checkpoint = std::make_shared<NamedCheckpoint>();
};

class UnreadNotes;
struct JobPlan;
struct MemoryPlan;

/// What a job writes into the run's folder of the weights that it ends with.
enum class JobResults {
  none,
  model,  // the dense model whatever [export] says, and with export.peft the adapter for PEFT
  all     // what [export] asks for
};

/// A job with all that is its own; its file in cli/jobs/ makes it. What the rest of the command line must know of a job
/// is told here, and nothing there asks for its name.
struct Job {
  std::string_view name, help;
  int (*run)(const JobInputs&);                                 // returns the exit code
  JobPlan (*plan)(const JobInputs&);                            // what it will take, found without taking it
  std::string (*smaller)(const JobConfig&, const MemoryPlan&);  // which keys make it take less, as a hint
  bool reads_data = false;                                      // data.train, data.eval
  std::vector<Split> samples{};                                 // splits of which --check reads the first documents
  bool trains = false;         // takes steps of the recipe's estimator, and keeps a run's records and checkpoints
  bool reads_results = false;  // works with what a training left in the run's folder
  bool moves_values = false;   // begins with the values that a training begins with, not with those that one has left
  JobResults results = JobResults::none;
  bool frees_results = false;  // what it writes of them must be free before it starts
  std::string_view kept{};     // what is whole when writing a result fails; empty: the run's checkpoints or log
  // What a job has nothing to say to stays null.
  /// Reads the sections that are its own, into `config.own`, whichever job the recipe asks for.
  void (*read)(Recipe&, JobConfig& config) = nullptr;
  /// Adds the faults of a recipe that asks for it: what it lacks, and what is wrong with files that its own keys name.
  void (*check)(Recipe&, const JobConfig&) = nullptr;
  /// Notes keys of its own that it does not read as the recipe stands.
  void (*note_unread)(const JobConfig&, UnreadNotes&) = nullptr;
  /// Files that its own keys name, with the keys: no job writes over them.
  std::vector<std::pair<std::string, std::filesystem::path>> (*inputs)(const JobConfig&) = nullptr;
  /// Names of what it writes into the run's folder, which it opens as it is: of single files, and, with a slash behind
  /// them, of folders.
  std::vector<std::string> (*outputs)(const JobConfig&) = nullptr;
  /// What --check looks at beyond the plan and notes, since it may be mended before the job starts: throws what the job
  /// would end with. The model is laid out and holds no values; null: the job has none.
  void (*look)(const JobInputs&, Model*) = nullptr;
  /// What --check ends with, as the job would: where the recipe says something else than what the run's folder holds,
  /// or than the files that it names. The model is as for `look`, and there is one.
  void (*compare)(const JobInputs&, Model&) = nullptr;
};
/// In the order in which --list names them.
const std::vector<Job>& jobs();
/// The recipe's.
const Job& job_of(const JobConfig&);

/// Exit codes: the outside contract.
constexpr int kDone = 0, kOurFault = 1, kUserError = 2, kStopped = 130;

}  // namespace tessera
