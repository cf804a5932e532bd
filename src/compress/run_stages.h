#pragma once
// Runs the stages that the recipe asks for: those that the journal has are done, those of another run are taken over,
// the others are run.

#include "compress/journal.h"
#include "compress/stages.h"

namespace tessera {

/// A stage as it stands at the end.
struct StageReport {
  std::string name, file;
  double seconds = 0;
  int64_t tokens = 0;
  enum class How { run, done_before, reused } how = How::run;
};

/// @throws UserError, before anything is computed, when a finished stage has read other values of the recipe
/// @throws Stopped on every rank when a stop was asked for: between two stages, or in one that can be left
std::vector<StageReport> run_stages(const StageInputs&);

/// What --check can tell of a journal: that its stages have read what the recipe's keys say.
/// @throws UserError as run_stages would
void look_at_journal(const std::filesystem::path& folder, const FoldConfig&,
                     const std::map<std::string, std::string>& keys);

/// What a stage reads, its inputs' hashes left out: of keys, base and data. On rank 0, which knows the base.
StageReads reads_of_recipe(const Stage&, const StageInputs&);

}  // namespace tessera
