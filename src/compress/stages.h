#pragma once
// The stages of job = "compress": what each reads and leaves. A stage is made in the file of its name beside this one;
// stages.cpp lists them in their order. run_stages.h runs them, and the journal (journal.h) knows which are done.

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"
#include "compress/cure_inputs.h"
#include "compress/fold_config.h"
#include "compress/journal.h"
#include "core/json.h"
#include "core/key_places.h"
#include "data/packed_dataset.h"
#include "kernels/compute.h"
#include "model/model.h"
#include "train/train_config.h"

namespace tessera {

/// What every stage works on; all of it outlives the stages.
struct StageInputs {
  const FoldConfig& fold;
  const TrainConfig& train;
  const CheckpointConfig& checkpoint;
  std::map<std::string, std::string> keys;  // of the recipe, as text: what the journal compares
  KeyPlaces where_fold;
  Model& model;               // the original, frozen
  const PackedDataset& data;  // data.train
  Communicator& world;
  const Context& ctx;
  std::filesystem::path folder;  // RUN/compress; rank 0 writes there
  std::function<void(const std::string&)> say;
  std::function<bool()> stop_requested;
  std::function<void()> begin{};        // called on rank 0 once the journal is known to fit the recipe; may be empty
  DataShare share{};                    // of the rows, this rank's; groups of one rank, since sums are over all ranks
  const PackedDataset* eval = nullptr;  // held-out rows; null: there are none
  CureInputs cure{};

  bool is_root() const { return world.rank() == 0; }
};

/// What a stage leaves for its file, the same on every rank or on rank 0 alone, and how many tokens it read.
struct StageOutcome {
  Json file;
  int64_t tokens = 0;
  std::string text{};  // of a file with a layout of its own, in place of `file`
};

/// What a stage takes, for the plan that --check prints.
struct StageCost {
  int64_t tokens = 0;
  double flop = 0;    // over all ranks
  int64_t bytes = 0;  // a rank, beside the mapped base: of the arena of its passes
  int64_t held = 0;   // the same: of what it makes and keeps while it runs
};

/// What costs are made of.
struct StageSizes {
  const FoldConfig& fold;
  const TrainConfig& train;
  Model& model;  // laid out, not held
  int ranks = 1, threads = 1;
  int64_t eval_tokens = 0;  // of held-out data, about; 0: there is none, or it was not asked for
  CureInputs cure{};
};

/// What a run of a stage has left in RUN/compress to go on from, and what it has read so far.
struct HalfDone {
  std::filesystem::path file;
  StageReads reads;
  bool is_whole = false;  // it is as far as it was asked to go: Stage::longer may be raised
};

struct Stage {
  std::string_view name;
  std::string_view file;                 // in RUN/compress, a JSON document
  std::vector<std::string> keys;         // of the recipe, that it reads
  std::vector<std::string_view> inputs;  // stages whose files it reads
  StageOutcome (*run)(const StageInputs&);
  StageCost (*cost)(const StageSizes&);
  bool (*applies)(const FoldConfig&) = nullptr;  // null: always
  bool in_plan = true;                           // a plan of the user's (fold.plan) takes its place
  std::vector<std::string_view> beside{};        // further files, from RUN/compress on, which `run` writes itself
  bool is_reusable = true;                       // its files can be copied from another run
  bool reads_eval = false;                       // held-out rows, where there are some
  /// What it goes on from, compared with the recipe before any stage is run. null: it begins anew each time.
  std::optional<HalfDone> (*half_done)(const std::filesystem::path& folder) = nullptr;
  /// One of its keys, a whole number: a stage that is done goes on from its state when it is asked for more. Empty:
  /// there is none.
  std::string_view longer{};
  bool takes_long = false;  // a line tells that it begins
};

/// In the order in which they run.
const std::vector<Stage>& stages();
const Stage& find_stage(std::string_view name);
/// Those that the recipe asks for, fold.until the last.
std::vector<const Stage*> asked_stages(const FoldConfig&);
bool is_asked(const FoldConfig&, std::string_view stage);
/// Keys of a section of the recipe ("fold", "train", "optimizer", "adapter") that the job reads itself, or a stage that
/// the recipe asks for.
std::vector<std::string> keys_that_are_read(const FoldConfig&, const std::string& section);

/// The file of a finished stage, the same on every rank. @throws UserError naming it
Json file_of_stage(const StageInputs&, std::string_view stage);
/// A file that rank 0 can read, the same on every rank. @throws UserError naming it, on every rank alike
std::string text_on_all(const StageInputs&, const std::filesystem::path& file);

/// Rows of one pass of a rank, in steps or evaluations of so many rows over all ranks.
int64_t rows_of_pass(const TrainConfig&, int64_t rows, int ranks);

/// Numbers of the model outside its embedding: what a token's forward pass multiplies, twice a FLOP each.
double computed_parameters(Model&);

}  // namespace tessera
