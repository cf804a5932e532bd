// The cure from the command line: stops and kills, ranks, what becomes of the cured model, what is refused.

#include <gmock/gmock.h>

#include <random>

#include "cli/compress_runs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::Cure;
using testing::AllOf;
using testing::HasSubstr;

TEST_F(Cure, KilledAnywhereItEndsAsIfNothingHadBeen) {
  expect_done(trainer(job("straight")));
  EXPECT_LT(perplexity("straight", "cured"), perplexity("straight", "shared"));
  std::mt19937 random(20261130);
  for (int kill = 0; kill < 20; ++kill) {
    test::Process process(trainer(job("run")));
    test::sleep_seconds(0.02 * static_cast<double>(random() % 50));
    process.send(SIGKILL);
    process.wait();
  }
  expect_done(trainer(job("run")));
  expect_same_cure("run", "straight");
  EXPECT_EQ(timeless_metrics("run"), timeless_metrics("straight"));
}

TEST_F(Cure, AStopLeavesACheckpointAndTheSameCommandGoesOn) {
  const Words words = {"train.steps=300"};
  expect_done(trainer(job("straight", words)));
  const auto moment = [&] { return holds("run/metrics.jsonl", "\"step\":12,"); };
  const test::Ended ended = stop(trainer(job("run", words)), SIGTERM, moment);
  EXPECT_THAT(ended.err,
              AllOf(HasSubstr("stopped while curing, after step "), testing::EndsWith("; the same command goes on\n")));
  EXPECT_FALSE(fs::exists(*this / "run/compress/cured"));
  EXPECT_THAT(fault(job("run", {"train.steps=300", "fold.tail_weight=2"})),
              AllOf(HasSubstr("stage cure cannot go on: the recipe differs"),
                    HasSubstr("fold.tail_weight was 1.0, now 2.0\n")));
  EXPECT_THAT(expect_done(trainer(job("run", words))).out, HasSubstr("going on from step "));
  expect_same_cure("run", "straight");
  EXPECT_EQ(timeless_metrics("run"), timeless_metrics("straight"));
}

/// A step at rate 0 shows what the cure begins with: groups that read a weight which a gate was multiplied into.
TEST_F(Cure, BeginsWithTheSharedModelWhereGatesWereMultipliedIn) {
  const Words words = {"fold.selector=gates", "fold.gates=sublayer", "fold.absorb=true", "fold.gate_steps=4",
                       "fold.gate_batch=2",   "train.steps=1",       "optimizer.lr=0.0", "fold.child=norm"};
  expect_done(trainer(job("run", words)));
  const Json shared = json("run", "compress/share.json").at("perplexity");
  EXPECT_EQ(perplexity("run", "cured"), shared.at(shared.find("shared") ? "shared" : "removed").as_number());
  EXPECT_NE(perplexity("run", "cured"), perplexity("run", "original"));
}

/// Passes of training are short here: those of 512 tokens by which the report measures speeds take the most memory, and
/// of all its models the cured one, which has the cure's deltas beside those of its children.
TEST_F(Cure, TheReportHasRoomForTheCuredModelWherePassesOfTrainingAreSmall) {
  const Words words = {"fold.selector=bi",         "fold.remove=0",         "fold.group=2",
                       "fold.child=lora",          "train.batch=1",         "train.steps=2",
                       "fold.gate_batch=1",        "fold.report_tokens=20", "fold.calibration_rows=1",
                       "train.sequence_length=16", "fold.until=report"};
  const test::Ended ended = expect_done(trainer(job("run", words)));
  EXPECT_THAT(ended.out, HasSubstr("stage report: done"));
}

TEST_F(Cure, FilesOfTheFoldedModelsThatAreDamagedAreMadeAgain) {
  expect_done(trainer(job("straight")));
  expect_done(trainer(job("run")));
  const std::vector<const char*> names = {"compress/shared/fold.safetensors", "compress/cured/fold_plan.json",
                                          "sharing/fold.safetensors", "sharing/fold_plan.json"};
  const auto expect_mended = [&](const char* damaged) {
    expect_done(trainer(job("run")));
    for (const char* name : names) EXPECT_EQ(file("run", name), file("straight", name)) << name << " after " << damaged;
  };
  for (const char* name : names) {
    std::string text = file("run", name);
    text[text.size() / 2] = static_cast<char>(text[text.size() / 2] ^ 1);
    test::write_file(*this / "run" / name, text);
    expect_mended(name);
    fs::remove(*this / "run" / name);
    expect_mended(name);
  }
}

TEST_F(Cure, RanksFindTheSame) {
  TESSERA_NEEDS_MPI();
  expect_done(trainer(job("one")));
  for (const int count : {2, 3}) {
    const std::string run = "ranks" + std::to_string(count);
    expect_done(ranks(count, job(run)));
    EXPECT_NEAR(perplexity(run, "cured"), perplexity("one", "cured"), 1e-3 * perplexity("one", "cured"));
    EXPECT_LE(test::largest_relative_difference(losses(run), losses("one")), 1e-4);
    EXPECT_NEAR(losses(run).front(), losses("one").front(), 1e-6 * losses("one").front());
  }
}

TEST_F(Cure, InFullItIsEvaluatedGeneratesAndIsExported) {
  expect_done(trainer(job("run", {"fold.cure=full", "optimizer.lr=2e-3", "train.steps=60"})));
  EXPECT_LT(perplexity("run", "cured"), perplexity("run", "shared"));
  const auto from_run = [&](const Words& more) {
    return trainer(joined({"lora.toml", "adapter.method=none", "sharing.method=fold", "sharing.load=run"}, more));
  };
  const test::Ended evaluated = expect_done(from_run({"job=evaluate", "run.dir=used"}));
  EXPECT_THAT(evaluated.err, testing::Not(HasSubstr("cut and not cured")));
  const auto loss = [](const test::Ended& ended) {
    return Json::parse(ended.out.substr(ended.out.find('{')), "evaluate").at("loss").as_number();
  };
  expect_done(
      from_run({"job=generate", "run.dir=used", "generate.prompts=[\"copy ba =\"]", "generate.max_new_tokens=4"}));
  expect_done(from_run({"job=export", "run.dir=dense", "model.dtype=f32"}));
  const test::Ended dense = expect_done(
      trainer({"full.toml", "model.path=dense/model", "model.init=pretrained", "job=evaluate", "run.dir=e"}));
  EXPECT_NEAR(loss(dense), loss(evaluated), 1e-5);
}

TEST_F(Cure, ACuredModelHoldsItsAdapterAndCarriesAnother) {
  expect_done(trainer(job("run", {"adapter.method=mos", "adapter.rank=3", "adapter.shards=2"})));
  const Json saved = json("run", "sharing/sharing.json").at("sharing");
  EXPECT_EQ(saved.at("state").as_string(), "cured");
  EXPECT_EQ(saved.at("cure").at("method").as_string(), "mos");
  for (const char* point : {"original", "removed", "shared", "cured"})
    EXPECT_GT(saved.at("perplexity").at(point).as_number(), 1) << point;
  expect_done(trainer({"lora.toml", "sharing.method=fold", "sharing.load=run", "run.dir=above", "train.steps=3"}));
  EXPECT_TRUE(fs::exists(*this / "above/adapter/adapter.json"));
}

TEST_F(Cure, FaultsAreToldBeforeAnythingIsComputed) {
  const auto refused = [&](const Words& more) { return fault(job("run", more)); };
  EXPECT_THAT(refused({"train.estimator=spsa"}), HasSubstr("fold: the cure cannot be trained by spsa"));
  EXPECT_THAT(refused({"adapter.load=base"}), HasSubstr("fold: the cure begins with a new adapter"));
  EXPECT_THAT(refused({"adapter.targets=[\"w_proj\"]"}), HasSubstr("w_proj"));
  replace("lora.toml", "steps = 50\n", "");
  Words words = job("run");
  std::erase(words, "train.steps=30");
  EXPECT_THAT(fault(words), HasSubstr("fold: the cure is a training, and train.steps is not given"));
  EXPECT_FALSE(fs::exists(*this / "run"));
}

TEST_F(Cure, TheCheckTellsWhatItTakes) {
  const auto of_cure = [&](const Words& more) {
    const std::string out = expect_done(trainer(job("run", joined(more, {"--check"})))).out;
    return out.substr(out.find("stage cure"), out.find('\n', out.find("stage cure")) - out.find("stage cure"));
  };
  EXPECT_THAT(of_cure({}), HasSubstr(std::to_string(30 * 8 * 64) + " tokens"));
  EXPECT_NE(of_cure({}), of_cure({"fold.cure=full"}));
  EXPECT_NE(of_cure({}), of_cure({"fold.kl_weight=0", "fold.tail_weight=0"}));
  EXPECT_THAT(expect_done(trainer(job("run", {"fold.cure=none", "--check", "fold.until="}))).out,
              testing::Not(HasSubstr("stage cure")));
}

}  // namespace
}  // namespace tessera
