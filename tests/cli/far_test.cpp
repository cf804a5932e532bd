// A whole job on the far device, whose memory no code outside its kernels can read: the CPU's results to the bit.

#include "io/files.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

class OnFar : public test::Workbench {
 protected:
  /// The same command on both devices; what it writes lies in cpu/ and far/.
  void run_on_both(Words words) const {
    for (const char* device : {"cpu", "far"}) {
      Words own = words;
      for (std::string& word : own)
        if (const size_t at = word.find("DEVICE"); at != std::string::npos) word.replace(at, 6, device);
      expect_done(trainer(joined(own, {std::string("run.device=") + device})));
    }
  }
  /// Every file of one folder is that of the other.
  void expect_same_files(const std::string& folder) const {
    int files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(path() / "cpu" / folder)) {
      if (!entry.is_regular_file()) continue;
      const fs::path there = path() / "far" / folder / fs::relative(entry.path(), path() / "cpu" / folder);
      EXPECT_EQ(read_text_file(entry.path()), read_text_file(there)) << entry.path();
      ++files;
    }
    EXPECT_GT(files, 0) << folder;
  }
};

TEST_F(OnFar, ARunSaysOnWhichDeviceItRuns) {
  EXPECT_EQ(plan({"mos.toml", "run.device=far"}).at("device").as_string(), "far");
  for (const auto& [given, device] : {std::pair{"far", "far"}, {"auto", "cpu"}})
    EXPECT_GT(test::occurrences(expect_done(trainer({"mos.toml", "train.steps=1", std::string("run.device=") + given,
                                                     std::string("run.dir=") + given}))
                                    .out,
                                std::string("; device ") + device + "\n"),
              0)
        << given;
}

TEST_F(OnFar, AnAdapterIsTrainedGoesOnIsMergedEvaluatedAndAsked) {
  const Words mos = {"mos.toml", "run.dir=DEVICE", "optimizer.schedule=constant", "adapter.dropout=0.1"};
  run_on_both(joined(mos, {"train.steps=2"}));
  run_on_both(joined(mos, {"train.steps=4", "export.merged=true", "export.peft=true"}));
  expect_same_run("far", "cpu");
  for (const char* folder : {"adapter", "model", "peft"}) expect_same_files(folder);
  EXPECT_EQ(expect_done(trainer({"mos.toml", "run.dir=cpu", "job=evaluate"})).out,
            expect_done(trainer({"mos.toml", "run.dir=far", "job=evaluate", "run.device=far"})).out);
  const Words ask = {"job=generate", "generate.prompts=[\"ba\", \"ka lo\"]", "generate.max_new_tokens=5"};
  expect_done(trainer(joined({"mos.toml", "run.dir=cpu"}, ask)));
  expect_done(trainer(joined({"mos.toml", "run.dir=far", "run.device=far"}, ask)));
  EXPECT_EQ(read_text_file(path() / "cpu/samples.jsonl"), read_text_file(path() / "far/samples.jsonl"));
}

TEST_F(OnFar, SharedWeightsAreTrained) {
  run_on_both({"rps.toml", "run.dir=DEVICE", "train.steps=3"});
  expect_same_run("far", "cpu");
  expect_same_files("sharing");
}

TEST_F(OnFar, VotesGiveOneLog) {
  run_on_both({"spsa.toml", "run.dir=DEVICE", "train.steps=9", "optimizer.momentum=0.9"});
  expect_same_files("adapter");
  expect_same_files("log");
}

TEST_F(OnFar, RanksReduceThroughTheHost) {
  TESSERA_NEEDS_MPI();
  const Words full = {"full.toml", "train.steps=2", "export.merged=false"};
  expect_done(ranks(2, joined(full, {"run.dir=cpu"})));
  expect_done(ranks(2, joined(full, {"run.dir=far", "run.device=far"})));
  expect_same_run("far", "cpu");
}

TEST_F(OnFar, AnotherBackendIsRefused) {
  EXPECT_NE(fault({"lora.toml", "--check", "run.device=far", "run.backend=reference"}).find("no backend \"reference\""),
            std::string::npos);
}

}  // namespace
}  // namespace tessera
