// Which checkpoints stay, and which one a run goes on from.

#include "train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/pretended_ranks.h"
#include "core/error.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class Checkpoints : public testing::Test {
 protected:
  Checkpoints() : optimizer_(make_optimizer({}, 128)) {
    pool_.reserve("slot", {.shape = {3}, .init = {Init::Kind::ones, 0, {}}});
    pool_.allocate(1);
  }
  void save(int64_t step, Retention& retention) {
    CheckpointMeta meta;
    meta.step = step;
    save_checkpoint(folder_.path(), meta, pool_.trainable(), *optimizer_, retention, false);
  }
  void save(int64_t step) {
    Retention all{.keep = 1000};
    save(step, all);
  }
  void damage(int64_t step) {
    std::string bytes = test::read_file(checkpoint_file(folder_.path(), step));
    bytes[bytes.size() / 2] ^= 1;
    test::write_file(checkpoint_file(folder_.path(), step), bytes);
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path()))
      if (entry.path().extension() == ".h5") names.push_back(entry.path().stem().string());
    return names;
  }
  std::string newest() const {
    std::vector<std::string> notices;
    const auto file = newest_checkpoint(folder_.path(), notices);
    return file ? file->stem().string() : "none";
  }

  test::TemporaryFolder folder_;
  ParameterPool pool_;
  std::unique_ptr<Optimizer> optimizer_;
};

TEST_F(Checkpoints, TheNewestStay) {
  Retention retention{.keep = 2};
  for (const int64_t step : {2, 4, 6, 8}) save(step, retention);
  EXPECT_THAT(files(), UnorderedElementsAre("step-00000006", "step-00000008"));
}

TEST_F(Checkpoints, ADamagedNewerOneTakesNobodysPlace) {
  for (const int64_t step : {4, 8}) save(step);
  damage(8);
  EXPECT_EQ(newest(), "step-00000004");
  Retention retention{.keep = 1, .gone_on_from = 4};
  save(6, retention);
  EXPECT_EQ(newest(), "step-00000006");
  EXPECT_THAT(files(), UnorderedElementsAre("step-00000004", "step-00000006", "step-00000008"));
  save(8, retention);
  EXPECT_THAT(files(), ElementsAre("step-00000008"));
  EXPECT_EQ(newest(), "step-00000008");
}

TEST_F(Checkpoints, ReadableOnesCount) {
  for (const int64_t step : {1, 2, 3, 4}) save(step);
  damage(3);
  damage(4);
  Retention retention{.keep = 2};
  save(5, retention);
  EXPECT_EQ(newest(), "step-00000005");
  damage(5);
  EXPECT_EQ(newest(), "step-00000002");
}

TEST_F(Checkpoints, CopiesUnderOtherNamesAreTheUsers) {
  Retention retention{.keep = 1};
  save(3);
  for (const char* name : {"step-best.h5", "step-00000003-copy.h5", "step-9.h5", "step-00000009.h5.bak"})
    fs::copy_file(checkpoint_file(folder_.path(), 3), folder_ / name);
  fs::create_directory(folder_ / "step-00000002.h5");
  save(5, retention);
  EXPECT_EQ(newest(), "step-00000005");
  for (const char* name :
       {"step-best.h5", "step-00000003-copy.h5", "step-9.h5", "step-00000009.h5.bak", "step-00000002.h5"})
    EXPECT_TRUE(fs::exists(folder_ / name)) << name;
  EXPECT_FALSE(fs::exists(checkpoint_file(folder_.path(), 3)));
}

TEST_F(Checkpoints, StepsAreComparedAsNumbers) {
  Retention retention{.keep = 2};
  for (const int64_t step : {99'999'998, 99'999'999, 100'000'000, 100'000'001}) save(step, retention);
  EXPECT_EQ(newest(), "step-100000001");
  EXPECT_THAT(files(), UnorderedElementsAre("step-100000000", "step-100000001"));
}

/// Two ranks one after the other: what rank 0 sends is kept for rank 1.
class OneByOne : public test::PretendedRanks {
 public:
  OneByOne() : PretendedRanks({"", ""}) {}
  int rank() const override { return is_second ? 1 : 0; }
  void broadcast(std::vector<std::byte>& bytes, int) override {
    if (!is_second) return sent.push_back(bytes);
    bytes = sent.at(next++);
  }
  bool is_second = false;
  std::vector<std::vector<std::byte>> sent;
  size_t next = 0;
};

TEST_F(Checkpoints, ARankThatCannotSeeTheFileIsSentIt) {
  for (float& value : pool_.trainable().values.as<float>()) value = 0.1f;
  optimizer_->visit_state([](const std::string& name, TensorView state) {
    for (float& value : state.as<float>()) value = name == "m" ? 0.2f : 0.3f;
  });
  CheckpointMeta meta;
  meta.step = 7;
  meta.rows_consumed = int64_t{1} << 60;
  meta.seconds = 0.1;
  meta.first_eval["nll"] = 1.0 / 3;
  meta.first_eval["scored"] = 3;
  meta.recipe = {{"train.steps", "9"}};
  meta.start_values = "hash";
  meta.rules = Rules::first;
  Retention all;
  save_checkpoint(folder_.path(), meta, pool_.trainable(), *optimizer_, all, false);

  OneByOne world;
  receive_checkpoint(checkpoint_file(folder_.path(), 7), world, pool_.trainable(), *optimizer_);
  world.is_second = true;
  ParameterPool there;
  there.reserve("slot", {.shape = {3}, .init = {Init::Kind::zeros, 0, {}}});
  there.allocate(1);
  const auto optimizer = make_optimizer({}, 128);
  const CheckpointMeta received = receive_checkpoint("/absent", world, there.trainable(), *optimizer);
  EXPECT_EQ(received.step, 7);
  EXPECT_EQ(received.rows_consumed, meta.rows_consumed);
  EXPECT_EQ(received.seconds, 0.1);
  EXPECT_EQ(received.first_eval["nll"], 1.0 / 3);
  EXPECT_EQ(received.first_eval["scored"], 3);
  EXPECT_EQ(received.best_loss, std::numeric_limits<double>::infinity());
  EXPECT_EQ(received.recipe, meta.recipe);
  EXPECT_EQ(received.start_values, "hash");
  EXPECT_EQ(received.rules, Rules::first);
  EXPECT_EQ(values_hash(there.trainable()), values_hash(pool_.trainable()));
  optimizer->visit_state(
      [](const std::string& name, TensorView state) { EXPECT_EQ(state.as<float>()[2], name == "m" ? 0.2f : 0.3f); });
}

TEST_F(Checkpoints, ThatAreAllGoneAreMissed) {
  EXPECT_EQ(newest(), "none");
  save(5);
  fs::remove(checkpoint_file(folder_.path(), 5));
  try {
    newest();
    FAIL() << "nothing was said";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("\"latest\" names step-00000005.h5, and no checkpoint is here any more"));
  }
  test::write_file(folder_ / "latest", "round-00000005.safetensors\n");  // of a run whose log is the checkpoint
  EXPECT_EQ(newest(), "none");
}

}  // namespace
}  // namespace tessera
