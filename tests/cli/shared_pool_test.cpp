// What else trains on a pool: one-byte SPSA, and adapters.

#include <gmock/gmock.h>

#include "cli/sharing_runs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::AllOf;
using testing::HasSubstr;

class SharedPool : public Sharing {};

TEST_F(SharedPool, OneByteSpsaTrainsThePoolAndReplayRebuildsIt) {
  const std::string said = expect_done(trainer(spsa({"run.dir=run"}))).out;
  EXPECT_THAT(said, HasSubstr("sent by a machine in a round: 32 bytes"));
  const test::Ended again = expect_done(trainer(spsa({"job=replay", "run.dir=run", "data.train=absent.jsonl"})));
  EXPECT_EQ(Json::parse(again.out, "replay").at("digests_verified").as_integer(), 5 + 4);
  EXPECT_EQ(saved_bytes("run-replay"), saved_bytes("run"));
  EXPECT_EQ(test::read_file(*this / "run-replay/sharing/sharing.json"),
            test::read_file(*this / "run/sharing/sharing.json"));
  EXPECT_EQ(evaluate(spsa({"run.dir=run"})), losses("run", "eval").back());

  const auto refused = [&](const std::string& more) { return fault(spsa({"job=replay", "run.dir=run", more})); };
  EXPECT_THAT(refused("sharing.seed=4"), AllOf(HasSubstr("the log belongs to another sharing: seed was 123321, the "
                                                         "recipe's is 4\n  set [sharing] as the run had it")));
  EXPECT_THAT(refused("sharing.compression=6"), HasSubstr("another sharing: cells was 4915, the recipe's is 4096\n"));
  EXPECT_THAT(refused("sharing.kappa=iso"),
              AllOf(HasSubstr("other tensors"), HasSubstr("\"rps.pool [4915] from 2688, adaptive steps to "),
                    HasSubstr("the model \"rps.pool [4915] from 2688\"")));
}

TEST_F(SharedPool, OneByteSpsaGoesOnAfterKillsToTheSameBits) {
  const Words words = spsa({"train.steps=400"});
  expect_done(trainer(joined(words, {"run.dir=straight"})));
  const auto command = trainer(joined(words, {"run.dir=run"}));
  for (const int64_t lines : {8, 40}) interrupt(command, "run", SIGKILL, lines);
  expect_done(command);
  EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));
  EXPECT_EQ(losses("run"), losses("straight"));
}

TEST_F(SharedPool, OneByteSpsaUnderTwoRanksIsRebuiltByOne) {
  TESSERA_NEEDS_MPI();
  const Words words = spsa({"train.steps=400"});
  EXPECT_THAT(expect_done(ranks(2, joined(words, {"run.dir=straight"}))).out, HasSubstr(" on all 2 ranks"));
  interrupt(ranks(2, joined(words, {"run.dir=run"})), "run", SIGKILL, 12, 1);
  expect_done(ranks(2, joined(words, {"run.dir=run"})));
  EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));
  expect_done(trainer(joined(words, {"job=replay", "run.dir=run"})));
  EXPECT_EQ(saved_bytes("run-replay"), saved_bytes("run"));
}

TEST_F(SharedPool, AnAdapterTrainsOnAFrozenPool) {
  expect_done(trainer(rps({"run.dir=base-run"})));
  const std::string pool = saved_bytes("base-run");
  const Words words = mos_on("base-run", {"run.dir=run", "export.merged=true"});
  EXPECT_THAT(expect_done(trainer(words)).out,
              AllOf(HasSubstr("26784 parameters; trained: 2048 (mos)"), HasSubstr("7.65 % of the model (26784)")));
  EXPECT_EQ(losses("run", "eval").front(), losses("base-run", "eval").back());
  EXPECT_LT(losses("run", "eval").back(), losses("run", "eval").front());
  EXPECT_EQ(saved_bytes("base-run"), pool);
  EXPECT_FALSE(fs::exists(*this / "run/sharing"));
  EXPECT_EQ(evaluate(words), losses("run", "eval").back());
  EXPECT_NEAR(dense_loss("run") / losses("run", "eval").back(), 1, 1e-5);
  const std::string merged = test::read_file(*this / "run/model/model.safetensors");
  fs::remove_all(*this / "run/model");
  expect_done(trainer(joined(words, {"job=export"})));
  EXPECT_EQ(test::read_file(*this / "run/model/model.safetensors"), merged);

  expect_done(trainer(rps({"run.dir=other-run", "train.steps=3", "train.seed=2"})));
  EXPECT_THAT(fault(mos_on("other-run", {"job=evaluate", "run.dir=run"})),
              AllOf(HasSubstr("was saved with base_fingerprint"), HasSubstr("it belongs to another base model")));
}

TEST_F(SharedPool, AnAdapterOnAFrozenPoolGoesOnToTheSameBits) {
  expect_done(trainer(rps({"run.dir=base-run", "train.steps=5"})));
  const Words words = mos_on("base-run", {"train.steps=100", "checkpoint.every=5", "adapter.dropout=0.1"});
  expect_done(trainer(joined(words, {"run.dir=straight"})));
  const auto command = trainer(joined(words, {"run.dir=run"}));
  interrupt(command, "run", SIGKILL, 20);
  expect_done(trainer(rps({"run.dir=other-run", "train.steps=3"})));
  Words other = joined(words, {"run.dir=run"});
  std::replace(other.begin(), other.end(), std::string("sharing.load=base-run/sharing"),
               std::string("sharing.load=other-run/sharing"));
  EXPECT_THAT(fault(other), HasSubstr("this run cannot go on with another base model\n"));
  expect_done(command);
  expect_same_run("run");
}

TEST_F(SharedPool, AnAdapterOnAFrozenPoolAgreesUnderRanks) {
  TESSERA_NEEDS_MPI();
  expect_done(trainer(rps({"run.dir=base-run", "train.steps=5"})));
  expect_done(trainer(mos_on("base-run", {"run.dir=alone"})));
  expect_done(ranks(2, mos_on("base-run", {"run.dir=two"})));
  EXPECT_LE(test::largest_relative_difference(losses("alone"), losses("two")), 1e-6);
  EXPECT_LE(test::largest_relative_difference(losses("alone", "eval"), losses("two", "eval")), 1e-6);
  for (const Json& line : metrics("two"))
    if (const Json* bytes = line.find("comm_bytes")) {
      EXPECT_EQ(bytes->as_integer(), 4 * 2048 + 24);
    }
}

TEST_F(SharedPool, AnAdapterTrainsOnAPoolThatIsDrawn) {
  expect_done(trainer(mos_on("", {"run.dir=run"})));
  EXPECT_THAT(test::read_file(*this / "run/log.txt"),
              HasSubstr("warning: rps: the frozen pool was not trained: it is drawn at random; set sharing.load"));
  EXPECT_LT(losses("run", "eval").back(), losses("run", "eval").front());
  EXPECT_EQ(evaluate(mos_on("", {"run.dir=run"})), losses("run", "eval").back());
  for (const char* other : {"sharing.seed=3", "train.seed=3"})
    EXPECT_THAT(fault(mos_on("", {"job=evaluate", "run.dir=run", other})),
                HasSubstr("set model.path and [sharing] to what it was trained on"));
}

TEST_F(SharedPool, AnAdapterOnAFrozenPoolIsTrainedByOneByteSpsa) {
  expect_done(trainer(rps({"run.dir=base-run", "train.steps=5"})));
  const Words words = joined(spsa({"sharing.load=base-run/sharing"}), {"adapter.method=lora", "adapter.rank=3"});
  expect_done(trainer(joined(words, {"run.dir=run"})));
  expect_done(trainer(joined(words, {"job=replay", "run.dir=run"})));
  EXPECT_EQ(saved_bytes("run-replay"), saved_bytes("run"));
}

}  // namespace
}  // namespace tessera
