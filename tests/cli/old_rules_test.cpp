// Runs that were begun by a program that kept no rules go on, and are replayed, with the numbers that it reckoned.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

fs::path golden() { return test::source_dir() / "tests/golden/old_rules"; }

std::vector<Json> lines_of(const fs::path& metrics) {
  std::istringstream text(test::read_file(metrics));
  std::vector<Json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line, metrics.string()));
  return lines;
}

/// tests/golden/old_rules, copied to where it is written to.
class OldRules : public test::Workbench {
 protected:
  OldRules() {
    fs::copy(golden(), path() / "old", fs::copy_options::recursive);
    fs::copy(test::source_dir() / "recipes/world/tokenizer", path() / "old/tokenizer");
    std::string json = test::read_file(path() / "old/spsa/run.json");
    for (size_t at; (at = json.find("@FOLDER@")) != std::string::npos;) json.replace(at, 8, (path() / "old").string());
    test::write_file(path() / "old/spsa/run.json", json);
  }

  /// Rates and counts of all steps are equal; losses to 1e-4: another machine sums in another order.
  void expect_same_steps(const std::string& run, const fs::path& old) {
    const auto steps_of = [](const std::vector<Json>& lines) {
      std::vector<Json> steps;
      for (const Json& line : lines)
        if (line.find("split") && line.at("split").as_string() == "train") steps.push_back(line);
      return steps;
    };
    const auto lines = steps_of(metrics(run)), want = steps_of(lines_of(old));
    ASSERT_EQ(lines.size(), want.size());
    for (size_t i = 0; i < lines.size(); ++i) {
      for (const char* key : {"step", "lr", "tokens"})
        EXPECT_EQ(lines[i].at(key).dump(), want[i].at(key).dump()) << key << " of step " << i + 1;
      EXPECT_NEAR(lines[i].at("loss").as_number(), want[i].at("loss").as_number(), 1e-4) << i + 1;
    }
  }
};

TEST_F(OldRules, AnSpsaRunThatWasKilledGoesOn) {
  const std::string header = test::read_file(path() / "old/spsa/log/header.json"),
                    json = test::read_file(path() / "old/spsa/run.json");
  const test::Ended ended = expect_done(trainer({"old/spsa.toml", "run.dir=old/spsa"}));
  EXPECT_EQ(test::read_file(path() / "old/spsa/log/header.json"), header);
  EXPECT_EQ(test::read_file(path() / "old/spsa/run.json"), json);
  EXPECT_THAT(header + json, Not(HasSubstr("\"rules\"")));
  EXPECT_EQ(lines_of(path() / "old/spsa/metrics.jsonl").back().at("step").as_integer(), 30);
  const auto want = lines_of(golden() / "spsa/metrics.jsonl");
  for (const Json& line : metrics("old/spsa")) {
    if (line.find("alpha") == nullptr) continue;
    const auto same = std::find_if(want.begin(), want.end(), [&](const Json& other) {
      return other.find("alpha") && other.at("step").as_integer() == line.at("step").as_integer();
    });
    ASSERT_NE(same, want.end());
    EXPECT_EQ(line.at("alpha").dump(), same->at("alpha").dump()) << line.dump();
  }
}

TEST_F(OldRules, ARunGoesOnFromItsCheckpointWhereverItWasMoved) {
  fs::create_directories(*this / "old/adamw/checkpoints");
  fs::rename(*this / "old/adamw/step-00000016.h5", *this / "old/adamw/checkpoints/step-00000016.h5");
  expect_done(trainer({"old/adamw.toml", "run.dir=old/adamw"}));
  expect_same_steps("old/adamw", golden() / "adamw/metrics.jsonl");
  EXPECT_NEAR(losses("old/adamw", "eval").back(),
              lines_of(golden() / "adamw/metrics.jsonl").back().at("loss").as_number(), 1e-4);
}

TEST_F(OldRules, ALogReplaysToItsDigests) {
  fs::copy_file(path() / "old/spsa/whole.tsb", path() / "old/spsa/log/00000000.tsb",
                fs::copy_options::overwrite_existing);
  const Json line = Json::parse(
      expect_done(trainer({"old/spsa.toml", "job=replay", "replay.log=old/spsa", "run.dir=replayed"})).out, "replay");
  EXPECT_EQ(line.at("rounds").as_integer(), 30);
  EXPECT_EQ("digest " + line.at("digest").as_string() + "\n", test::read_file(golden() / "spsa/digest.txt"));
}

TEST_F(OldRules, ABranchFollowsThoseOfItsParent) {
  expect_done(trainer({"old/spsa.toml", "job=replay", "replay.log=old/spsa", "replay.round=7", "replay.branch=old/b"}));
  EXPECT_THAT(test::read_file(path() / "old/b/log/header.json"), Not(HasSubstr("\"rules\"")));
  expect_done(trainer({"old/spsa.toml", "run.dir=old/b"}));
  EXPECT_EQ(metrics("old/b").back().at("step").as_integer(), 30);
  EXPECT_THAT(test::read_file(path() / "old/b/run.json"), Not(HasSubstr("\"rules\"")));
}

TEST_F(OldRules, ANewRunFollowsTheNewest) {
  expect_done(trainer({"old/spsa.toml", "run.dir=new"}));
  EXPECT_THAT(test::read_file(path() / "new/log/header.json"), HasSubstr("\n \"rules\": 3,\n"));
  EXPECT_THAT(test::read_file(path() / "new/run.json"), HasSubstr("\n \"rules\": 3\n"));
}

/// tests/golden/rules_2, of the last program whose sums hung on instructions and micro-batches.
class SecondRules : public test::Workbench {
 protected:
  SecondRules() {
    fs::copy(golden2(), path() / "old", fs::copy_options::recursive);
    fs::copy(test::source_dir() / "recipes/world/tokenizer", path() / "old/tokenizer");
  }
  static fs::path golden2() { return test::source_dir() / "tests/golden/rules_2"; }
};

TEST_F(SecondRules, ACheckpointLeadsOnAndTheOtherOrderIsTold) {
  fs::create_directories(*this / "old/adamw/checkpoints");
  fs::rename(*this / "old/adamw/step-00000016.h5", *this / "old/adamw/checkpoints/step-00000016.h5");
  const test::Ended ended = expect_done(trainer({"old/adamw.toml", "run.dir=old/adamw"}));
  EXPECT_THAT(ended.out + ended.err, HasSubstr("the run began with an older version, whose sums had other last bits"));
  EXPECT_NEAR(losses("old/adamw", "eval").back(),
              lines_of(golden2() / "adamw/metrics.jsonl").back().at("loss").as_number(), 1e-4);
  EXPECT_THAT(expect_done(trainer({"old/adamw.toml", "run.dir=new"})).out, Not(HasSubstr("older version")));
}

TEST_F(SecondRules, LogsReplayToTheirDigestsFromTheValuesThatWereDrawnThen) {
  fs::copy_file(path() / "old/spsa/whole.tsb", path() / "old/spsa/log/00000000.tsb",
                fs::copy_options::overwrite_existing);
  for (const std::string run : {"spsa", "rps"}) {
    const Json line = Json::parse(
        expect_done(trainer({"old/" + run + ".toml", "job=replay", "replay.log=old/" + run, "run.dir=replayed_" + run}))
            .out,
        "replay");
    EXPECT_EQ("digest " + line.at("digest").as_string() + "\n", test::read_file(golden2() / run / "digest.txt")) << run;
  }
}

TEST_F(OldRules, ALogOfRulesThatAreNotKnownIsRefused) {
  std::string header = test::read_file(path() / "old/spsa/log/header.json");
  header.replace(header.find(" \"seed\""), 0, " \"rules\": 99,\n");
  test::write_file(path() / "old/spsa/log/header.json", header);
  EXPECT_THAT(expect_exit(2, trainer({"old/spsa.toml", "run.dir=old/spsa"})).err,
              HasSubstr("the run follows rules 99, this program knows 1 to 3"));
}

}  // namespace
}  // namespace tessera
