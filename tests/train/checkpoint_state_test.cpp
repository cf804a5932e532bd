// What a checkpoint holds, and what is refused to be read into a model.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "io/hdf5_file.h"
#include "support/paths.h"
#include "train/checkpoint.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A pool of two slots, its numbers a function of the salt.
struct State {
  explicit State(float salt = 0, const Shape& second = {2, 3}, const std::string& name = "b",
                 const char* method = "adamw") {
    pool.reserve("a", {.shape = {3}, .init = {Init::Kind::ones, 0, {}}});
    pool.reserve(name, {.shape = second, .init = {Init::Kind::ones, 0, {}}});
    pool.allocate(1);
    OptimizerConfig config;
    config.name = method;
    optimizer = make_optimizer(config, params().values.shape.count());
    float next = salt;
    const auto fill = [&](std::span<float> numbers) {
      for (float& number : numbers) number = (next += 0.1f);
    };
    // The gaps between slots are nobody's numbers, and stay 0.
    for (const TrainableSlot& slot : params().slots)
      fill(params().values.as<float>().subspan(static_cast<size_t>(slot.begin),
                                               static_cast<size_t>(slot.shape.count())));
    optimizer->visit_state([&](const std::string&, TensorView state) {
      for (const TrainableSlot& slot : params().slots)
        fill(state.slice_rows(slot.begin, slot.begin + slot.shape.count()).as<float>());
    });
  }
  FlatParams& params() { return pool.trainable(); }
  /// Values and optimizer state.
  std::vector<float> numbers() {
    const auto values = params().values.as<float>();
    std::vector<float> all(values.begin(), values.end());
    optimizer->visit_state([&](const std::string&, TensorView state) {
      const auto numbers = state.as<float>();
      all.insert(all.end(), numbers.begin(), numbers.end());
    });
    return all;
  }
  ParameterPool pool;
  std::unique_ptr<Optimizer> optimizer;
};

class CheckpointState : public testing::Test {
 protected:
  fs::path save(State& state, const CheckpointMeta& meta = {}, bool is_best = false) {
    Retention all{.keep = 1000};
    save_checkpoint(folder_.path(), meta, state.params(), *state.optimizer, all, is_best);
    return checkpoint_file(folder_.path(), meta.step);
  }
  static CheckpointMeta at_step(int64_t step) {
    CheckpointMeta meta;
    meta.step = step;
    return meta;
  }
  static std::string refusal(const std::function<void()>& read) {
    try {
      read();
    } catch (const UserError& error) {
      return error.what();
    }
    return "nothing was thrown";
  }
  test::TemporaryFolder folder_;
};

TEST_F(CheckpointState, IsReadBackToTheBit) {
  State saved(0.3f), read;
  const fs::path file = save(saved);
  load_checkpoint(file, read.params(), *read.optimizer);
  EXPECT_EQ(read.numbers(), saved.numbers());
}

TEST_F(CheckpointState, GivesValuesAloneToJobsThatDoNotTrainOn) {
  State saved(0.3f), read;
  const State untouched;
  OpenedCheckpoint(save(saved)).load_values(read.params());
  EXPECT_EQ(values_hash(read.params()), values_hash(saved.params()));
  read.optimizer->visit_state([](const std::string&, TensorView s) { EXPECT_LT(s.as<float>()[0], 3.3f) << "its own"; });
}

TEST_F(CheckpointState, KeepsEverythingElseOfTheRun) {
  State state;
  CheckpointMeta meta;
  meta.rules = Rules::first;
  meta.step = 12;
  meta.rows_consumed = int64_t{1} << 60;
  meta.ranks = 3;
  meta.seconds = 0.1 + 0.2;
  meta.tokens = 77;
  meta.last_loss = 1.0 / 3;
  meta.first_eval["nll"] = 2.0 / 3;
  meta.first_eval["scored"] = 5;
  meta.last_eval["choices_right"] = 4;
  meta.best_loss = 0.125;
  meta.owes_evaluation = 1;
  meta.eval_set = "rows of that hash";
  meta.recipe = {{"optimizer.lr", "0.1"}, {"train.steps", "9"}};
  meta.data_hash = "data";
  meta.base_fingerprint = "base";
  meta.config_fingerprint = "config";
  meta.start_values = "start";
  const CheckpointMeta read = read_checkpoint_meta(save(state, meta));
  EXPECT_EQ(read.rules, meta.rules);
  EXPECT_EQ(read.step, meta.step);
  EXPECT_EQ(read.rows_consumed, meta.rows_consumed);
  EXPECT_EQ(read.ranks, meta.ranks);
  EXPECT_EQ(read.seconds, meta.seconds);
  EXPECT_EQ(read.tokens, meta.tokens);
  EXPECT_EQ(read.last_loss, meta.last_loss);
  EXPECT_EQ(to_json(read.first_eval).dump(), to_json(meta.first_eval).dump());
  EXPECT_EQ(to_json(read.last_eval).dump(), to_json(meta.last_eval).dump());
  EXPECT_EQ(read.best_loss, meta.best_loss);
  EXPECT_EQ(read.owes_evaluation, 1);
  EXPECT_EQ(read.eval_set, meta.eval_set);
  EXPECT_EQ(read.recipe, meta.recipe);
  EXPECT_EQ(read.data_hash, meta.data_hash);
  EXPECT_EQ(read.base_fingerprint, meta.base_fingerprint);
  EXPECT_EQ(read.config_fingerprint, meta.config_fingerprint);
  EXPECT_EQ(read.start_values, meta.start_values);
}

TEST_F(CheckpointState, BeforeTheFirstStepAndEvaluationIsKeptToo) {
  State state;
  const CheckpointMeta read = read_checkpoint_meta(save(state));
  EXPECT_TRUE(std::isnan(read.last_loss));
  EXPECT_EQ(read.best_loss, std::numeric_limits<double>::infinity());
  EXPECT_FALSE(read.first_eval.has_scored());
}

/// Fields that files of earlier versions lack.
TEST_F(CheckpointState, OfAnEarlierVersionFollowsTheFirstRulesAndKnowsLess) {
  const fs::path file = folder_ / "old.h5";
  {
    Hdf5File h5 = Hdf5File::create(file);
    for (const char* name : {"format_version", "step", "rows_consumed", "ranks", "tokens"})
      h5.write_integer(std::string("/meta/") + name, 1);
    for (const char* name : {"seconds", "last_loss", "best_loss"}) h5.write_number(std::string("/meta/") + name, 0.5);
    for (const char* name : {"first_eval", "last_eval"})
      h5.write_text(std::string("/meta/") + name, R"({"nll":4.5,"scored":3,"correct":1})");
    h5.write_text("/meta/recipe", "{}");
    for (const char* name : {"data_hash", "base_fingerprint"}) h5.write_text(std::string("/meta/") + name, "hash");
    h5.seal();
  }
  const CheckpointMeta read = read_checkpoint_meta(file);
  EXPECT_EQ(read.rules, Rules::first);
  EXPECT_EQ(read.eval_set, "");
  EXPECT_EQ(read.start_values, "");
  EXPECT_EQ(read.last_eval["nll"], 4.5);
  EXPECT_EQ(read.last_eval["correct"], 1);
  EXPECT_TRUE(std::isnan(read.last_eval["choices"])) << "sums that came later are not known";
}

TEST_F(CheckpointState, OfAnotherFormatIsRefused) {
  const fs::path file = folder_ / "new.h5";
  {
    Hdf5File h5 = Hdf5File::create(file);
    h5.write_integer("/meta/format_version", 2);
    h5.seal();
  }
  EXPECT_EQ(refusal([&] { read_checkpoint_meta(file); }),
            file.string() + ": checkpoint format 2, this program reads 1");
}

TEST_F(CheckpointState, ThatDoesNotFitIsRefusedAndNothingIsChanged) {
  State saved(0.3f);
  const fs::path file = save(saved);
  const auto expect_refused = [&](State&& other, const std::string& message) {
    const std::vector<float> before = other.numbers();
    EXPECT_THAT(refusal([&] { load_checkpoint(file, other.params(), *other.optimizer); }), HasSubstr(message));
    EXPECT_EQ(other.numbers(), before) << message;
  };
  expect_refused(State(1, {2, 3}, "c"),
                 "holds no \"/pool/c\"\n  the checkpoint belongs to another model, adapter or optimizer");
  expect_refused(State(1, {3, 2}), "\"/pool/b\" is [2, 3], expected [3, 2]");
  expect_refused(State(1, {2, 3}, "b", "sgd"), "holds no \"/optimizer/a/");
}

TEST_F(CheckpointState, ThatWasCutOrAlteredIsRefused) {
  State state;
  const fs::path file = save(state);
  const std::string whole = test::read_file(file);
  for (const size_t length : {size_t{0}, size_t{100}, whole.size() - 1}) {
    test::write_file(file, whole.substr(0, length));
    EXPECT_NE(refusal([&] { read_checkpoint_meta(file); }), "nothing was thrown") << length << " bytes";
  }
  for (size_t at = whole.size() / 7; at < whole.size(); at += whole.size() / 7) {
    std::string altered = whole;
    altered[at] ^= 4;
    test::write_file(file, altered);
    EXPECT_NE(refusal([&] { read_checkpoint_meta(file); }), "nothing was thrown") << "byte " << at;
  }
}

TEST_F(CheckpointState, OfTheBestEvaluationIsKeptUnderItsOwnName) {
  State first(0.1f), second(0.5f), best;
  save(first, at_step(3), true);
  save(second, at_step(5));
  EXPECT_EQ(read_checkpoint_meta(folder_ / "best.h5").step, 3);
  OpenedCheckpoint(folder_ / "best.h5").load_values(best.params());
  EXPECT_EQ(values_hash(best.params()), values_hash(first.params()));
  EXPECT_EQ(test::read_file(folder_ / "latest"), "step-00000005.h5\n");
}

TEST_F(CheckpointState, ThatIsNotFiniteIsNamedByItsNumber) {
  State broken_value, broken_state;
  broken_value.params().values.as<float>()[1] = std::numeric_limits<float>::infinity();
  broken_state.optimizer->visit_state([](const std::string&, TensorView state) { state.as<float>()[2] = NAN; });
  const std::string value = refusal([&] { require_finite_state(8, broken_value.params(), *broken_value.optimizer); }),
                    state = refusal([&] { require_finite_state(8, broken_state.params(), *broken_state.optimizer); });
  EXPECT_THAT(value, HasSubstr("step 8"));
  EXPECT_THAT(value, HasSubstr("\"a\""));
  EXPECT_THAT(state, HasSubstr("\"a/m\""));
}

TEST_F(CheckpointState, ThatIsDamagedNamesAnEarlierOneThatIsWhole) {
  State state;
  const fs::path earlier = save(state, at_step(2)), newer = save(state, at_step(4));
  test::write_file(newer, "no checkpoint");
  EXPECT_THAT(refusal([&] { read_chosen_checkpoint(newer); }),
              HasSubstr("an earlier checkpoint is whole: run.resume=" + earlier.string()));
  test::write_file(earlier, "none either");
  EXPECT_THAT(refusal([&] { read_chosen_checkpoint(newer); }), HasSubstr("no earlier checkpoint beside it is whole"));
}

}  // namespace
}  // namespace tessera
