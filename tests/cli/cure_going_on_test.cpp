// What a finished or half-done run of job = "compress" goes on with: a longer cure, folders that were lost, a damaged
// journal; and what it refuses, before anything is computed.

#include <gmock/gmock.h>

#include "cli/compress_runs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::Cure;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class CureGoingOn : public Cure {
 protected:
  /// To the report, of 20 steps at one rate.
  Words whole(const std::string& run, const Words& more = {}) const {
    return job(run,
               joined({"fold.until=", "train.steps=20", "optimizer.schedule=constant", "fold.report_tokens=40"}, more));
  }
  static bool was_run(const test::Ended& ended, const std::string& stage) {
    return ended.out.find("stage " + stage + ": done\n") != std::string::npos;
  }
  /// Refused by the run with this text, and by --check.
  void expect_refused(const Words& words, const testing::Matcher<const std::string&>& told) const {
    EXPECT_THAT(fault(words), told);
    EXPECT_THAT(fault(joined(words, {"--check"})), told);
  }
  void expect_checked(const Words& words) const { expect_done(trainer(joined(words, {"--check"}))); }
  double nll(const std::string& run, const std::string& name) const {
    const Json report = json(run, "compress/report.json");
    for (const Json& point : report.at("points").items())
      if (point.at("name").as_string() == name) return point.at("nll").as_number();
    ADD_FAILURE() << "no point " << name;
    return 0;
  }
  void flip(const std::string& name, size_t place, int bit = 1) const {
    std::string text = file("run", name);
    text[place] = static_cast<char>(text[place] ^ bit);
    test::write_file(*this / "run" / name, text);
  }
};

/// At one rate a lengthened cure is the longer one to the last bit.
TEST_F(CureGoingOn, ALargerNumberOfStepsLengthensAFinishedRun) {
  const Words longer = {"train.steps=40"};
  expect_done(trainer(whole("straight", longer)));
  expect_done(trainer(whole("run")));
  const double before = nll("run", "cured");
  expect_checked(whole("run", longer));
  const test::Ended ended = expect_done(trainer(whole("run", longer)));
  EXPECT_THAT(ended.out, HasSubstr("train.steps was 20, now 40; the learning rate of step 21 is 0.0"));
  EXPECT_FALSE(was_run(ended, "share"));
  EXPECT_TRUE(was_run(ended, "cure"));
  EXPECT_TRUE(was_run(ended, "report"));
  expect_same_cure("run", "straight");
  EXPECT_EQ(nll("run", "cured"), nll("straight", "cured"));
  EXPECT_NE(nll("run", "cured"), before);
  EXPECT_EQ(json("run", "compress/cure.json").at("tokens").as_integer(), 40 * 8 * 64);
  EXPECT_FALSE(was_run(expect_done(trainer(whole("run", longer))), "cure"));
  expect_refused(whole("run"), HasSubstr("train.steps was 40, now 20\n"));
}

TEST_F(CureGoingOn, AnotherNumberOfRanksLengthensItTheSame) {
  TESSERA_NEEDS_MPI();
  expect_done(trainer(whole("straight", {"train.steps=30"})));
  expect_done(trainer(whole("run")));
  const test::Ended ended = expect_done(ranks(2, whole("run", {"train.steps=30"})));
  EXPECT_TRUE(was_run(ended, "cure") && was_run(ended, "report")) << ended.out;
  EXPECT_LE(test::largest_relative_difference(losses("run"), losses("straight")), 1e-4);
  EXPECT_NEAR(nll("run", "cured"), nll("straight", "cured"), 1e-3);
}

TEST_F(CureGoingOn, ALengthenedCureThatIsStoppedGoesOnAndAHalfDoneOneIsNotLengthened) {
  const Words longer = {"train.steps=400"};
  expect_done(trainer(whole("straight", longer)));
  expect_done(trainer(whole("run")));
  const auto moment = [&] { return holds("run/metrics.jsonl", "\"step\":31,"); };
  stop(trainer(whole("run", longer)), SIGTERM, moment);
  EXPECT_TRUE(fs::exists(*this / "run/compress/cured")) << "what was finished stays until there is more";
  expect_refused(whole("run", {"train.steps=500"}),
                 AllOf(HasSubstr("checkpoints/step-"), HasSubstr("train.steps was 400, now 500\n")));
  EXPECT_THAT(expect_done(trainer(whole("run", longer))).out, Not(HasSubstr("train.steps was")));
  expect_same_cure("run", "straight");
}

TEST_F(CureGoingOn, ACureWithoutItsCheckpointsIsNotLengthened) {
  expect_done(trainer(whole("run")));
  fs::remove_all(*this / "run/compress/checkpoints");
  EXPECT_FALSE(was_run(expect_done(trainer(whole("run"))), "cure"));
  expect_refused(
      whole("run", {"train.steps=40"}),
      HasSubstr("stage cure ended with train.steps = 20, 40 are asked for, and it has nothing to go on from"));
}

TEST_F(CureGoingOn, AChangedKeyOfAFinishedRunIsToldWithBothValues) {
  expect_done(trainer(whole("run")));
  const std::string journal = file("run", "compress/journal.jsonl");
  for (const auto& [word, told] : std::vector<std::pair<std::string, std::string>>{
           {"fold.cure=none", "fold.cure was \"adapter\", now \"none\"\n"},
           {"fold.cure=full", "fold.cure was \"adapter\", now \"full\"\n"},
           {"fold.kl_weight=2", "fold.kl_weight was 1.0, now 2.0\n"},
           {"optimizer.lr=0.5", "optimizer.lr was "},
           {"optimizer.weight_decay=0.5", "optimizer.weight_decay was 0.0, now 0.5\n"},
           {"adapter.alpha=3", "adapter.alpha was "},
           {"train.batch=4", "train.batch was 8, now 4\n"}})
    expect_refused(whole("run", {word}), AllOf(HasSubstr("cannot go on: the recipe differs"), HasSubstr(told),
                                               Not(HasSubstr("cure.json")), Not(HasSubstr("share.json"))));
  EXPECT_EQ(file("run", "compress/journal.jsonl"), journal);
  expect_done(trainer(whole("bare", {"fold.cure=none"})));
  expect_refused(whole("bare"), HasSubstr("fold.cure was \"none\", now \"adapter\"\n"));
  EXPECT_FALSE(fs::exists(*this / "bare/compress/cured"));
}

TEST_F(CureGoingOn, AHalfDoneCureIsComparedBeforeAnyStageIsRun) {
  const Words words = {"train.steps=400"};
  const auto moment = [&] { return holds("run/metrics.jsonl", "\"step\":12,"); };
  stop(trainer(whole("run", words)), SIGTERM, moment);
  fs::remove(*this / "run/compress/probe.json");
  expect_refused(whole("run", joined(words, {"adapter.alpha=3"})),
                 AllOf(HasSubstr("checkpoints/step-"), HasSubstr("stage cure cannot go on: the recipe differs"),
                       HasSubstr("adapter.alpha was ")));
  expect_refused(whole("run", {"train.steps=500"}), HasSubstr("train.steps was 400, now 500\n"));
  EXPECT_FALSE(fs::exists(*this / "run/compress/probe.json"));
  expect_checked(whole("run", words));
}

TEST_F(CureGoingOn, ALostCuredModelIsTheOneInTheRunsFolder) {
  expect_done(trainer(whole("run")));
  const std::string cured = file("run", "sharing/fold.safetensors");
  fs::remove_all(*this / "run/compress/cured");
  EXPECT_FALSE(was_run(expect_done(trainer(whole("run"))), "cure")) << "it is restored";
  EXPECT_EQ(file("run", "compress/cured/fold.safetensors"), cured);

  fs::remove_all(*this / "run/compress/cured");
  flip("sharing/fold.safetensors", cured.size() - 1);
  EXPECT_TRUE(was_run(expect_done(trainer(whole("run"))), "cure")) << "what is left of it is the program's own";
  EXPECT_EQ(file("run", "sharing/fold.safetensors"), cured);

  fs::remove_all(*this / "run/compress/cured");
  test::write_file(*this / "run/sharing/sharing.json", file("run", "sharing/sharing.json") + " ");
  fs::remove(*this / "run/compress/probe.json");
  expect_refused(whole("run"), HasSubstr("a trained model lies in the place of the folded one"));
  EXPECT_FALSE(fs::exists(*this / "run/compress/probe.json")) << "it is told before anything is computed";
}

TEST_F(CureGoingOn, ADamagedLineOfTheJournalCostsItsStageAlone) {
  expect_done(trainer(whole("run")));
  const std::string journal = file("run", "compress/journal.jsonl"), cure = file("run", "compress/cure.json"),
                    cured = file("run", "sharing/fold.safetensors");
  const size_t line = journal.find("{\"stage\":\"cure\"");
  ASSERT_NE(line, std::string::npos);
  for (const size_t place :
       {line, journal.find("\"fold.kl_weight\":\"1", line) + 18, journal.find("sha256", line) + 9}) {
    test::write_file(*this / "run/compress/journal.jsonl", journal);
    flip("compress/journal.jsonl", place, 4);
    const test::Ended ended = expect_done(trainer(whole("run")));
    EXPECT_TRUE(was_run(ended, "cure")) << place;
    EXPECT_FALSE(was_run(ended, "share"));
    EXPECT_EQ(file("run", "compress/cure.json"), cure);
    EXPECT_EQ(file("run", "sharing/fold.safetensors"), cured);
    EXPECT_EQ(file("run", "compress/journal.jsonl").substr(0, line), journal.substr(0, line));
  }
  test::write_file(*this / "run/compress/journal.jsonl", journal);
  flip("compress/journal.jsonl", line, 4);
  EXPECT_THAT(expect_done(trainer(whole("run"))).out,
              AllOf(HasSubstr("journal.jsonl:"), HasSubstr("this line of the journal is damaged and does not count")));
}

TEST_F(CureGoingOn, LengthAndFrozenTensorsFollowTheRulesOfATraining) {
  replace("lora.toml", "steps = 50\n", "steps = 50\nepochs = 2\n");
  Words words = whole("run");
  std::erase(words, "train.steps=20");
  std::erase(words, "train.steps=30");
  EXPECT_THAT(fault(words), HasSubstr("train.steps and train.epochs are both given"));
  EXPECT_THAT(fault({"lora.toml"}), HasSubstr("train.steps and train.epochs are both given"));
  const Words full = {"fold.cure=full", "adapter.method=none", "--check"};
  EXPECT_THAT(fault(whole("run", joined(full, {"train.freeze=[\"attn_pool\"]"}))),
              HasSubstr("\ncommand line: train.freeze \"attn_pool\" is found in no tensor's name"));
  EXPECT_THAT(expect_done(trainer(whole("run", joined(full, {"train.freeze=[\"layers.0.\"]"})))).out,
              HasSubstr("\nstage cure "));
  test::write_file(*this / "my.json",
                   R"({"format": "tessera fold plan", "version": 1, "base": {"layers": 6, "model_type": "llama"},
 "removed": [1], "removed_halves": [], "groups": [{"blocks": [0]}, {"blocks": [2, 3, 4], "parent": 3, "values": "own"},
 {"blocks": [5]}], "child": {"level": "norm", "rank": 0}})");
  EXPECT_THAT(fault({"lora.toml", "job=compress", "run.dir=run", "fold.plan=my.json", "fold.cure=full",
                     "adapter.method=none", "train.steps=3", "train.freeze=[\"layers.1.mlp\"]"}),
              HasSubstr("\ncommand line: fold: of 'model.layers.1.mlp."));
  for (const char* adapter : {"lora", "none"})
    EXPECT_THAT(expect_done(trainer(whole("run", {"fold.cure=adapter", std::string("adapter.method=") + adapter,
                                                  "train.freeze=[\"norm\"]", "--check"})))
                    .err,
                HasSubstr("train.freeze does nothing: fold.cure is \"adapter\""))
        << adapter;
}

/// Numbers that --check tells are those of the run.
TEST_F(CureGoingOn, TheCheckCountsWhatTheRunStoresAndTrains) {
  const auto figure = [](const std::string& out, const std::string& line, const std::string& unit) {
    const std::string text = out.substr(out.find("\n" + line) + 1);
    const std::string of_line = text.substr(0, text.find('\n'));
    const size_t end = of_line.find(unit), begin = of_line.rfind(", ", end) + 2;
    std::string digits;
    for (const char c : of_line.substr(begin, end - begin))
      if (c >= '0' && c <= '9') digits += c;
    return digits.empty() ? -1 : std::stoll(digits);
  };
  int number = 0;
  for (const Words& more : std::vector<Words>{
           {"fold.child=lora", "fold.child_rank=2"},
           {"fold.child=scale", "adapter.method=mos", "adapter.rank=3", "adapter.shards=2"},
           {"fold.child=lora", "fold.child_rank=2", "fold.selector=run", "fold.replace=mse", "fold.replace_steps=2"},
           {"fold.child=mos", "fold.child_rank=2", "adapter.method=none"},
           {"fold.cure=full", "adapter.method=none", "fold.parent=mean"}}) {
    const std::string run = "run" + std::to_string(number++);
    const Words words = whole(run, joined({"train.steps=2"}, more));
    const std::string out = expect_done(trainer(joined(words, {"--check"}))).out;
    expect_done(trainer(words));
    const Json cure = json(run, "compress/cure.json"), share = json(run, "compress/share.json");
    EXPECT_EQ(figure(out, "cured ", " parameters stored"), cure.at("parameters_stored").as_integer()) << out;
    EXPECT_EQ(figure(out, "cured ", " trained"), cure.at("parameters_trained").as_integer()) << out;
    EXPECT_EQ(figure(out, "folded ", " parameters stored"), share.at("parameters_stored").as_integer()) << out;
  }
}

}  // namespace
}  // namespace tessera
