#pragma once
// A folder with a tiny model, data and recipes, and the trainer to run on them.

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "support/paths.h"
#include "support/process.h"

namespace tessera::test {

/// base/config.json (a Llama of 2 layers, drawn at random), train.jsonl and eval.jsonl (prompts of syllables, completed
/// by their copies), and a recipe for each way to train: full.toml, lora.toml, mos.toml and rps.toml (24,576 weights,
/// the tied embedding's among them, in 4,915 cells; 2,208 are not shared), all with 50 steps of 24 rows, and spsa.toml:
/// LoRA by one-byte SPSA, 40 rounds of 3 probes of 2 rows, a digest every 8 rounds, a snapshot every 10.
class Workbench : public testing::Test {
 protected:
  Workbench();

  using Words = std::vector<std::string>;
  /// The trainer, alone, in the folder.
  Command trainer(Words arguments) const;
  /// The trainer under mpirun. See TESSERA_NEEDS_MPI().
  Command ranks(int count, const Words& arguments) const;
  /// mpirun with the given arguments, from "-n" on.
  Command launch(const Words& arguments) const;
  /// A rank for each list of arguments, under one mpirun, each in its folder if there are any: /proc/self/cwd/FILE is
  /// then one text and as many files, as on machines that do not share theirs.
  Command ranks_with(const std::vector<Words>& arguments, const Words& folders = {}) const;

  /// What a command that cannot be done says.
  std::string fault(const Words& words) const { return expect_exit(2, trainer(words)).err; }
  /// What --check plans.
  Json plan(const Words& words) const;
  /// Puts the other text in the place of the first of its kind in a file.
  void replace(const std::string& file, const std::string& text, const std::string& other) const;

  static Words joined(Words words, const Words& more);

  /// Runs to the end and expects this exit code; the output is in the failure's message.
  Ended expect_exit(int code, const Command&, double seconds = 240) const;
  Ended expect_done(const Command& command) const { return expect_exit(0, command); }

  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }
  const std::filesystem::path& path() const { return folder_.path(); }

  /// How many lines a run has told so far, 0 before it tells any; and waits until they are so many.
  int64_t lines(const std::string& run) const;
  void wait_for_lines(const std::string& run, int64_t count) const;
  /// The run as if it had been killed before it told that it is done.
  void forget_end(const std::string& run) const;
  /// The run is the other to the last bit.
  void expect_same_run(const std::string& run, const std::string& straight = "straight") const;
  /// The command, of the run "run", ends; the run is the other to the last bit, and nothing is left half-written.
  void expect_done_like(const Command&, const std::string& straight) const;
  /// metrics.jsonl of a run.
  std::vector<Json> metrics(const std::string& run) const;
  /// The same as text, without what depends on the clock or on the machine's memory.
  std::vector<std::string> timeless_metrics(const std::string& run) const;
  std::vector<double> losses(const std::string& run, const std::string& split = "train") const;
  /// Bytes of the tensors that the run saved at its end: the adapter's, the shared or the model's.
  std::string saved_bytes(const std::string& run) const;
  /// Names of the run's checkpoints, oldest first.
  std::vector<std::string> checkpoints(const std::string& run) const;
  /// Files that an atomic write has not renamed, anywhere in the run.
  std::vector<std::string> temporaries(const std::string& run) const;

 private:
  TemporaryFolder folder_;
};

/// Largest |a - b| / |a|; infinite for unequal lengths.
double largest_relative_difference(std::span<const double> a, std::span<const double> b);

/// How often `part` occurs.
int64_t occurrences(const std::string& text, const std::string& part);

bool mpi_is_there();

}  // namespace tessera::test

/// Skips a test that needs mpirun and the MPI part.
#define TESSERA_NEEDS_MPI() \
  if (!::tessera::test::mpi_is_there()) GTEST_SKIP() << "this build has no MPI part"
