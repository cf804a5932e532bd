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

/// What --check tells of the folder of a run that has begun: stages that are done, one that is half done, and damaged
/// lines of the journal. Empty where none has.
std::vector<std::string> tell_stages_done(const std::filesystem::path& folder, const FoldConfig&);

/// What --check can tell of a journal, and of what stages have left half done: that it was read what the recipe's keys
/// say.
/// @throws UserError as run_stages would
void look_at_journal(const std::filesystem::path& folder, const FoldConfig&,
                     const std::map<std::string, std::string>& keys);

/// Compares what a stage has read with what it would read now. Keys that `before` does not name are those that the
/// program did not have then.
/// @param is_whole  the stage is as far as it was asked to go: more of Stage::longer may be asked for
/// @param files     as require_same_reads has them
/// @throws UserError naming `file` and all that was read otherwise
void require_same_recipe(const Stage&, const std::filesystem::path& file, StageReads before, StageReads now,
                         bool is_whole, const ReadFiles& files = {});

/// Whether what is half done is as far as it was asked to go: by its own word, or since the stage has ended with that.
/// @param done  the stage's line; null: it is not done
bool is_whole(const Stage&, const HalfDone&, const JournalLine* done);

/// Whether the recipe asks for more of Stage::longer than the stage was asked for before.
bool is_longer(const Stage&, const StageReads& before, const StageReads& now);

/// What a stage reads, its inputs' hashes left out: of keys, base and data. On rank 0, which knows the base.
StageReads reads_of_recipe(const Stage&, const StageInputs&);

}  // namespace tessera
