// job = "compress" from the command line: its stages, what it goes on from, what it refuses, ranks, stops and kills.

#include <gmock/gmock.h>

#include <random>

#include "cli/compress_runs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::Compress;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST_F(Compress, RunsItsStagesOnceAndKeepsWhatTheyFound) {
  const test::Ended ended = expect_done(trainer(job("run")));
  EXPECT_THAT(stages("run"), ElementsAre("probe", "gates", "remove", "group", "share", "report"));
  const Json probe = json("run", "probe.json"), gates = json("run", "gates.json"),
             removed = json("run", "removed.json");
  EXPECT_EQ(numbers(probe.at("bi")).size(), 6u);
  ASSERT_EQ(probe.at("similarity").items().size(), 7u);
  for (size_t i = 0; i < 7; ++i) {
    const auto row = numbers(probe.at("similarity").items()[i]);
    EXPECT_NEAR(row[i], 1, 1e-6);
    EXPECT_EQ(row[(i + 3) % 7], numbers(probe.at("similarity").items()[(i + 3) % 7])[i]);
    if (i < 6) {
      EXPECT_EQ(numbers(probe.at("bi"))[i], 1 - row[i + 1]);
    }
  }
  EXPECT_EQ(gates.at("theta").items().size(), 6u);
  EXPECT_EQ(gates.at("gate").items().front().as_number(), 1) << "protected";
  EXPECT_EQ(gates.at("theta_every_10_steps").items().size(), 4u) << "the start, and three times ten steps";
  EXPECT_GT(gates.at("losses").at("bi").as_number(), 0);
  const auto blocks = numbers(removed.at("removed"));
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_THAT(blocks, testing::Each(AllOf(testing::Ge(1), testing::Le(4))));
  EXPECT_THAT(last_line(ended), testing::StartsWith("{\"run\":"));

  const std::string journal = file("run", "journal.jsonl");
  const test::Ended again = expect_done(trainer(job("run")));
  EXPECT_EQ(file("run", "journal.jsonl"), journal);
  EXPECT_EQ(last_line(again), last_line(ended));
  EXPECT_EQ(test::occurrences(again.out, "done before"), 6);
  const test::Ended stored = expect_done(trainer({(*this / "run/recipe.toml").string()}));
  EXPECT_EQ(test::occurrences(stored.out, "done before"), 6) << stored.out;
}

TEST_F(Compress, AnotherRecipeIsRefusedWithBothValuesAndTheSameRunGoesOn) {
  expect_done(trainer(job("run", {"fold.until=gates"})));
  EXPECT_THAT(stages("run"), ElementsAre("probe", "gates"));
  const std::string recipe = test::read_file(*this / "run/recipe.toml");
  EXPECT_THAT(fault(job("run", {"fold.gate_lr=0.01"})),
              AllOf(HasSubstr("journal.jsonl: stage gates cannot go on: the recipe differs"),
                    HasSubstr("fold.gate_lr was 0.02, now 0.01\n"), Not(HasSubstr("fold.remove"))));
  EXPECT_EQ(test::read_file(*this / "run/recipe.toml"), recipe);
  EXPECT_THAT(fault(job("run", {"fold.gate_lr=0.01", "--check"})), HasSubstr("fold.gate_lr was 0.02, now 0.01\n"));
  expect_done(trainer(job("run", {"fold.until=remove"})));
  EXPECT_THAT(stages("run"), ElementsAre("probe", "gates", "remove"));
  fs::remove(*this / "run/compress/removed.json");
  expect_done(trainer(job("run")));
  EXPECT_THAT(stages("run"), ElementsAre("probe", "gates", "remove", "remove", "group", "share", "report"));
  EXPECT_THAT(fault(job("run", {"fold.group=3"})), HasSubstr("fold.group was 2, now 3\n"));
}

TEST_F(Compress, AFileThatSomebodyAlteredIsKeptBesideTheOneThatIsMadeAnew) {
  expect_done(trainer(job("run", {"fold.selector=bi"})));
  const std::string removed = file("run", "removed.json");
  const std::string mine = removed + " ";
  test::write_file(*this / "run/compress/removed.json", mine);
  const test::Ended ended = expect_done(trainer(job("run", {"fold.selector=bi"})));
  EXPECT_THAT(ended.out, AllOf(HasSubstr("removed.json is not as stage remove left it"), HasSubstr("fold.plan")));
  EXPECT_EQ(file("run", "removed.json"), removed);
  EXPECT_EQ(file("run", "removed.json.altered"), mine);
}

TEST_F(Compress, GatesOfHalvesAreToldToDoNothingWhereNoneAreTrained) {
  const auto notes = [&](const Words& more) {
    const test::Ended ended = expect_done(trainer(joined(job("run", more), {"fold.gates=sublayer", "--check"})));
    return ended.out + ended.err;
  };
  EXPECT_THAT(notes({"fold.selector=bi"}), HasSubstr("fold.gates does nothing: no gates are trained"));
  EXPECT_THAT(notes({}), Not(HasSubstr("fold.gates does")));
}

TEST_F(Compress, StagesOfAnotherRunAreTakenOverWhereTheyReadTheSame) {
  expect_done(trainer(job("run", {"fold.gate_remove=0.5"})));
  const Words other = job("other", {"fold.gate_remove=0.5", "fold.remove=0.17", "fold.reuse=run"});
  const test::Ended ended = expect_done(trainer(other));
  EXPECT_EQ(test::occurrences(ended.out, ": reused"), 2) << ended.out;
  EXPECT_EQ(file("other", "gates.json"), file("run", "gates.json"));
  const auto few = numbers(json("other", "removed.json").at("removed"));
  EXPECT_EQ(few.size(), 1u);
  EXPECT_THAT(fault(job("third", {"fold.reuse=base"})), HasSubstr("holds no run of job = \"compress\""));
}

TEST_F(Compress, RanksFindTheSame) {
  TESSERA_NEEDS_MPI();
  const Words words = {"fold.child=lora", "fold.child_rank=4"};  // starts of several types, handed from rank to rank
  expect_done(trainer(job("one", words)));
  for (const int count : {2, 3}) {
    const std::string run = "ranks" + std::to_string(count);
    expect_done(ranks(count, job(run, words)));
    EXPECT_EQ(file(run, "probe.json"), file("one", "probe.json")) << "rows are summed in their order";
    EXPECT_EQ(file(run, "removed.json"), file("one", "removed.json"));
    EXPECT_EQ(file(run, "deltas.json"), file("one", "deltas.json"));
    EXPECT_EQ(json(run, "fold_plan.json").at("groups").dump(), json("one", "fold_plan.json").at("groups").dump());
    EXPECT_EQ(file(run, "../sharing/fold.safetensors"), file("one", "../sharing/fold.safetensors"));
    const auto a = numbers(json(run, "gates.json").at("theta")), b = numbers(json("one", "gates.json").at("theta"));
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-3);
  }
}

TEST_F(Compress, GatesByProbesAreTheSameFromOneRankOrTwoAndAfterEachKill) {
  const Words words = {"fold.gate_estimator=spsa", "fold.gate_batch=1", "fold.gate_steps=100"};
  expect_done(trainer(job("straight", words)));
  EXPECT_EQ(json("straight", "removed.json").at("removed").items().size(), 2u);
  const auto log = [&] { return *this / "run/compress/gates-log/00000000.tsb"; };
  std::string out;
  for (const uintmax_t bytes : {500, 1500, 3000}) {
    test::Process process(trainer(job("run", words)));
    EXPECT_TRUE(test::Stops::hold(process, [&] { return fs::exists(log()) && fs::file_size(log()) > bytes; }));
    process.send(SIGKILL);
    out += process.wait().out;
  }
  out += expect_done(trainer(job("run", words))).out;
  EXPECT_EQ(test::occurrences(out, "gates: going on from step "), 3);
  EXPECT_EQ(file("run", "gates.json"), file("straight", "gates.json"));
  expect_same_files("run", "straight");
  EXPECT_THAT(expect_done(trainer({"log", (*this / "run/compress/gates-log").string()})).out, HasSubstr("fold gates"));
  TESSERA_NEEDS_MPI();
  expect_done(ranks(2, job("two", words)));
  for (const char* key : {"theta", "gate", "mu", "fallen", "theta_every_10_steps"})
    EXPECT_EQ(json("two", "gates.json").at(key).dump(), json("straight", "gates.json").at(key).dump()) << key;
  EXPECT_EQ(file("two", "removed.json"), file("straight", "removed.json"));
}

TEST_F(Compress, AStopIsPoliteAndTheSameCommandGoesOn) {
  const Words words = {"fold.gate_steps=400"};
  expect_done(trainer(job("straight", words)));
  const auto moment = [&] { return fs::exists(*this / "run/compress/gates-state.json"); };
  const test::Ended ended = stop(trainer(job("run", words)), SIGTERM, moment);
  EXPECT_THAT(ended.err, AllOf(HasSubstr("stopped while training gates, after step "),
                               testing::EndsWith("; the same command goes on\n")));
  EXPECT_THAT(expect_done(trainer(job("run", words))).out, HasSubstr("gates: going on from step "));
  expect_same_files("run", "straight");
}

TEST_F(Compress, KilledAnywhereItEndsAsIfNothingHadBeen) {
  expect_done(trainer(job("straight")));
  std::mt19937 random(20261129);
  for (int kill = 0; kill < 12; ++kill) {
    test::Process process(trainer(job("run")));
    test::sleep_seconds(0.02 * static_cast<double>(random() % 60));
    process.send(SIGKILL);
    process.wait();
  }
  expect_done(trainer(job("run")));
  expect_same_files("run", "straight");
  EXPECT_THAT(stages("run"), testing::IsSupersetOf({"probe", "gates", "remove", "group", "share", "report"}));
}

TEST_F(Compress, SelectorsThatNeedNoGatesTrainNone) {
  for (const char* selector : {"bi", "random", "run"}) {
    const std::string run = selector;
    expect_done(trainer(job(run, {"fold.selector=" + run, "fold.gate_steps=400"})));
    EXPECT_THAT(stages(run), ElementsAre("probe", "remove", "group", "share", "report"));
    EXPECT_EQ(json(run, "removed.json").at("removed").items().size(), 2u);
  }
  expect_done(trainer(job("halves", {"fold.gates=sublayer"})));
  EXPECT_EQ(json("halves", "gates.json").at("theta").items().size(), 12u);
  expect_done(trainer(job("none", {"fold.remove=0"})));
  EXPECT_THAT(json("none", "removed.json").at("removed").items(), IsEmpty());
}

TEST_F(Compress, GatesOfHalvesStayWhereTheyAreAskedTo) {
  const Words halves = {"fold.gates=sublayer", "fold.gate_steps=20"}, stay = joined(halves, {"fold.absorb=true"});
  expect_done(trainer(job("open", halves)));
  expect_done(trainer(job("soft", joined(stay, {"fold.reuse=open"}))));
  EXPECT_EQ(file("soft", "removed.json"), file("open", "removed.json"));
  EXPECT_NE(file("soft", "../sharing/fold.safetensors"), file("open", "../sharing/fold.safetensors"));
  EXPECT_NE(json("soft", "share.json").at("perplexity").at("removed").as_number(),
            json("open", "share.json").at("perplexity").at("removed").as_number());
  const Words planned = {"lora.toml",        "job=compress",
                         "run.dir=planned",  "data.cache=cache",
                         "fold.cure=none",   "fold.calibration_rows=6",
                         "fold.until=share", "fold.plan=soft/compress/fold_plan.json"};
  EXPECT_THAT(expect_done(trainer(planned)).out,
              HasSubstr("the plan is of a run with fold.absorb, whose gates no plan holds"));
  EXPECT_THAT(fault(job("other", joined(stay, {"fold.selector=bi"}))), HasSubstr("no gates are trained"));
  EXPECT_THAT(fault(job("other", joined(stay, {"fold.gate_remove=0.5"}))),
              HasSubstr("gates are trained for fold.gate_remove = 0.5, where fold.remove is 0.33"));
}

TEST_F(Compress, EndsWithASmallerModelThatIsEvaluatedAndGeneratesAndIsTrained) {
  const test::Ended ended = expect_done(trainer(job("run")));
  EXPECT_THAT(ended.out, HasSubstr("folded model: "));
  const Json share = json("run", "share.json"), plan = json("run", "fold_plan.json");
  EXPECT_EQ(share.at("virtual_layers").as_integer(), 4);
  EXPECT_EQ(share.at("groups").as_integer(), 3) << "the first and the last stay single";
  EXPECT_EQ(plan.at("groups").items()[1].at("blocks").items().size(), 2u);
  const Json saved = json("run", "../sharing/sharing.json");
  EXPECT_EQ(saved.at("parameters").as_integer(), share.at("parameters_stored").as_integer());
  EXPECT_LT(share.at("parameters_stored").as_integer(), share.at("parameters_original").as_integer());
  for (const char* point : {"original", "removed", "shared"})
    EXPECT_GT(saved.at("sharing").at("perplexity").at(point).as_number(), 1) << point;

  const auto from_run = [&](const Words& more) {
    return trainer(joined({"lora.toml", "adapter.method=none", "sharing.method=fold", "sharing.load=run"}, more));
  };
  const test::Ended evaluated = expect_done(from_run({"job=evaluate", "run.dir=used"}));
  EXPECT_THAT(evaluated.err, HasSubstr("this model was cut and not cured (perplexity of its calibration rows "));
  EXPECT_GT(Json::parse(evaluated.out.substr(evaluated.out.find('{')), "evaluate").at("loss").as_number(), 0);
  const test::Ended text = expect_done(
      from_run({"job=generate", "run.dir=used", "generate.prompts=[\"copy ba =\"]", "generate.max_new_tokens=4"}));
  EXPECT_FALSE(text.out.empty());
  expect_done(from_run({"run.dir=cured", "train.steps=4"}));
  EXPECT_EQ(Json::parse(test::read_file(*this / "cured/sharing/sharing.json"), "sharing.json")
                .at("sharing")
                .at("state")
                .as_string(),
            "cured");
}

TEST_F(Compress, APlanOfTheUsersTakesThePlaceOfWhatWouldMakeOne) {
  const Words plain = {"lora.toml",        "job=compress",      "run.dir=run",
                       "data.cache=cache", "fold.plan=my.json", "fold.calibration_rows=6",
                       "fold.cure=none"};
  test::write_file(*this / "my.json",
                   R"({"format": "tessera fold plan", "version": 1, "base": {"layers": 6, "model_type": "llama"},
 "removed": [1], "removed_halves": [], "groups": [{"blocks": [0]}, {"blocks": [2, 3, 4], "parent": 3, "values": "own"},
 {"blocks": [5]}], "child": {"level": "scale", "rank": 0}})");
  EXPECT_THAT(expect_done(trainer(joined(plain, {"--check"}))).out, HasSubstr("\nstage share"));
  expect_done(trainer(plain));
  EXPECT_THAT(stages("run"), ElementsAre("share", "report"));
  EXPECT_EQ(json("run", "share.json").at("virtual_layers").as_integer(), 5);
  EXPECT_EQ(test::occurrences(expect_done(trainer(plain)).out, "done before"), 2);
  replace("my.json", "\"scale\"", "\"norm\"");
  EXPECT_THAT(fault(plain),
              AllOf(HasSubstr("stage share cannot go on: the recipe differs"), HasSubstr("my.json\") was ")));
  replace("my.json", "[2, 3, 4]", "[2, 4]");
  EXPECT_THAT(fault(plain), HasSubstr("my.json:"));
}

TEST_F(Compress, FaultsAreToldBeforeAnythingIsComputed) {
  const auto refused = [&](const Words& more) { return fault(job("run", more)); };
  EXPECT_THAT(refused({"fold.remove=0.9", "fold.gate_remove=0.9"}),
              HasSubstr("fold: removing 5 of 6 blocks leaves 1; 2 are protected"));
  EXPECT_THAT(refused({"fold.calibration_rows=100000"}),
              HasSubstr("fold: 100000 calibration rows are asked for, data."));
  EXPECT_THAT(refused({"fold.gate_remove=0.2"}), HasSubstr("fold.gate_remove is 0.2, less than fold.remove = 0.33"));
  EXPECT_THAT(
      refused({"fold.replace=mse"}),
      HasSubstr("fold.replace is \"mse\", and a replaced block stands for one consecutive run: fold.selector is "
                "\"gates\"\n  set fold.selector = \"run\""));
  EXPECT_THAT(refused({"fold.replace=end", "fold.selector=run", "fold.gates=sublayer"}),
              AllOf(HasSubstr("fold.gates is \"sublayer\"\n  set fold.gates = \"block\""), Not(HasSubstr("selector"))));
  EXPECT_THAT(refused({"fold.replace=end", "fold.selector=run", "fold.plan=lora.toml"}),
              HasSubstr("fold.plan names none\n  leave fold.plan out"));
  EXPECT_THAT(refused({"fold.absorb=true"}), HasSubstr("fold.gates is \"block\""));
  EXPECT_THAT(refused({"fold.plan=lora.toml", "fold.group=3"}), HasSubstr("fold.group is given beside fold.plan"));
  EXPECT_THAT(refused({"sharing.method=depth", "sharing.blocks=3"}), HasSubstr("sharing.method is \"depth\""));
}

TEST_F(Compress, WhatStandsInItsPlacesIsToldWithAWayOut) {
  fs::create_directories(*this / "run");
  test::write_file(*this / "run/compress", "mine");
  EXPECT_THAT(fault(job("run")), AllOf(HasSubstr("run/compress: is a file, and a folder belongs there: move it away"),
                                       HasSubstr("or set run.dir to another folder")));
  fs::remove(*this / "run/compress");
  expect_done(trainer(job("run")));
  test::write_file(*this / "run/sharing/sharing.json", "{");
  EXPECT_THAT(fault({"lora.toml", "adapter.method=none", "sharing.method=fold", "sharing.load=run", "job=evaluate"}),
              AllOf(HasSubstr("sharing.json: not valid JSON"), HasSubstr("take another copy of the folder")));
  expect_done(trainer(job("run")));
  expect_done(trainer({"lora.toml", "adapter.method=none", "sharing.method=fold", "sharing.load=run", "job=evaluate"}));
}

TEST_F(Compress, KeysThatNoStageReadsAreTold) {
  const auto told = [&](const Words& more) { return expect_done(trainer(job("run", joined({"--check"}, more)))).err; };
  const std::string why = ": no stage that is run asks for that\n";
  EXPECT_THAT(told({"train.clip=0.5", "fold.until=share"}), HasSubstr("train.clip"));
  EXPECT_THAT(told({"fold.until=share"}), AllOf(HasSubstr("adapter.dropout"), HasSubstr("optimizer.lr"), HasSubstr(why),
                                                Not(HasSubstr("train.sequence_length"))));
  EXPECT_THAT(told({"fold.until=share", "adapter.shards=2"}), Not(HasSubstr("adapter.method is")));
  EXPECT_THAT(told({"fold.until=probe", "fold.selector=run", "fold.replace=mse"}), HasSubstr("fold.replace"));
}

TEST_F(Compress, AnotherRateNamesTheKeyThatWasChanged) {
  expect_done(trainer(job("run", {"fold.until=gates"})));
  EXPECT_THAT(fault(job("run", {"fold.remove=0.17"})),
              HasSubstr("fold.gate_remove (by default fold.remove) was 0.33, now 0.17\n"));
  expect_done(trainer(job("bi", {"fold.selector=bi"})));
  EXPECT_THAT(fault(job("bi", {"fold.selector=bi", "fold.remove=0.17"})),
              AllOf(HasSubstr("\n  fold.remove was 0.33, now 0.17\n"), Not(HasSubstr("fold.gate_remove"))));
}

TEST_F(Compress, HalfTrainedGatesAreComparedBeforeAnyStageIsRun) {
  expect_done(trainer(job("run", {"fold.until=gates"})));
  fs::remove(*this / "run/compress/gates.json");
  fs::remove(*this / "run/compress/probe.json");
  const auto expect_refused = [&](const std::string& text) {
    EXPECT_THAT(text,
                AllOf(HasSubstr("gates-state.json: stage gates cannot go on"), HasSubstr("fold.gate_lr was 0.02")));
  };
  const Words other = {"fold.until=gates", "fold.gate_lr=0.01"};
  expect_refused(fault(job("run", other)));
  EXPECT_FALSE(fs::exists(*this / "run/compress/probe.json"));
  expect_refused(fault(job("run", joined(other, {"--check"}))));
  expect_done(trainer(job("run", {"fold.until=gates"})));
}

TEST_F(Compress, AHalfTrainedBlockIsComparedBeforeAnyStageIsRun) {
  const Words words = {"fold.selector=run", "fold.replace=mse", "fold.replace_steps=10", "fold.until=replace"};
  expect_done(trainer(job("run", words)));
  for (const char* name : {"probe.json", "replace.json"}) fs::remove(*this / "run/compress" / name);
  const Words other = job("run", joined(words, {"fold.replace_lr=0.5"}));
  const auto told = AllOf(HasSubstr("replace-state.h5: stage replace cannot go on"),
                          HasSubstr("fold.replace_lr was 0.0002, now 0.5\n"));
  EXPECT_THAT(fault(other), told);
  EXPECT_THAT(fault(joined(other, {"--check"})), told);
  EXPECT_FALSE(fs::exists(*this / "run/compress/probe.json"));
  expect_done(trainer(job("run", words)));
}

TEST_F(Compress, TheCheckTellsWhatEachStageTakes) {
  const test::Ended ended = expect_done(trainer(job("run", {"--check"})));
  for (const char* stage : {"probe", "gates", "remove", "group", "share", "report"})
    EXPECT_THAT(ended.out, HasSubstr(std::string("\nstage ") + stage));
  EXPECT_THAT(ended.out, HasSubstr("\noriginal  6 layers of 6 blocks, "));
  EXPECT_THAT(ended.out, HasSubstr("\nfolded    4 layers of 3 blocks, "));
  EXPECT_THAT(ended.out, HasSubstr("trained 0, frozen"));
  EXPECT_FALSE(fs::exists(*this / "run"));
}

}  // namespace
}  // namespace tessera
