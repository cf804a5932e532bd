// One trained block in place of a run: its gradients, what training leaves alone, going on, ranks, and the folded model
// that it ends in.

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/calibration.h"
#include "compress/cured_model.h"
#include "compress/replace_trainer.h"
#include "compress/run_stages.h"
#include "compress/stages_bench.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "io/files.h"
#include "io/safetensors.h"
#include "model/fold/plan_file.h"
#include "support/folds.h"
#include "support/thread_ranks.h"
#include "train/backprop.h"
#include "train/trainer_inputs.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr ReplacedRun kRun{1, 4};  // of six blocks: 0 B 4 5

class Replacing : public test::StagesBench {
 protected:
  Replacing() {
    fold_.selector = "run";
    fold_.remove = 0.33;
    fold_.replace = "mse";
    fold_.replace_steps = 20;
    fold_.replace_lr = 0.01;
    fold_.keep_head = 1;
    train_.batch = 4;
  }
  std::unique_ptr<Model> student() { return replaced_model(model_, kRun, {}, true); }
  static void train(BlockTrainer& trainer) {
    while (!trainer.is_done()) trainer.advance();
  }
  double loss(Model& model, const BlockGates& gates = {}) { return calibration_loss(inputs(), model, gates); }
  double loss_without_run() {
    std::vector<double> open(6, 1.0);
    open[2] = open[3] = 0;
    return loss(model_, {BlockGates::Of::blocks, open});
  }
  std::vector<float> block_of(Model& model) const {
    const auto values = model.pool().trainable().values.as<float>();
    return {values.begin(), values.end()};
  }
  /// The loss of validation at a place of the curve.
  static double validation(const BlockTrainer& trainer, size_t point) {
    return trainer.state().curve.at(point).validation;
  }
};

TEST_F(Replacing, AMeanSquareIsZeroWhereTheRestOfTheRunAddsNothing) {
  for (const int layer : {2, 3})
    for (const int number : {block(layer).o, block(layer).down}) clear(number);
  const StageInputs in = inputs();
  const auto cut = student();
  const std::vector<float> before = block_of(*cut);
  BlockTrainer trainer(in, kRun, *cut, streamed_pairs(model_, kRun));
  train(trainer);
  EXPECT_EQ(validation(trainer, 0), 0);
  EXPECT_EQ(block_of(*cut), before) << "what is best is kept, although weights decay";
  const std::vector<int32_t> ids = {3, 14, 1, 5, 9, 2, 6};
  const Tensor ours = test::logits_of(own_.ctx, *cut, ids), theirs = test::logits_of(own_.ctx, model_, ids);
  for (size_t i = 0; i < ours.as<float>().size(); ++i) EXPECT_EQ(ours.as<float>()[i], theirs.as<float>()[i]) << i;
}

TEST_F(Replacing, KeepsTheLowestLossAndLeavesAllElseAsItIs) {
  const StageInputs in = inputs();
  const Tensor logits = test::logits_of(own_.ctx, model_, {3, 14, 1, 5, 9});
  for (const char* way : {"mse", "end", "both"}) {
    fold_.replace = way;
    const auto cut = student();
    BlockTrainer trainer(in, kRun, *cut, streamed_pairs(model_, kRun));
    train(trainer);
    const auto& curve = trainer.state().curve;
    const size_t phases = std::string(way) == "both" ? 2 : 1;
    ASSERT_EQ(curve.size(), phases * 11) << "at the beginning, and behind every other of 20 steps";
    double best = std::numeric_limits<double>::infinity();
    for (const ReplacePoint& point : curve)
      if (point.phase + 1 == static_cast<int64_t>(phases)) best = std::min(best, point.validation);
    EXPECT_EQ(trainer.state().best, best);
    EXPECT_LT(best, curve[(phases - 1) * 11].validation) << way;
    if (std::string(way) == "mse") {
      const BlockError kept = calibration_error(in, kRun, *cut, streamed_pairs(model_, kRun));
      EXPECT_EQ(kept.error / kept.numbers, best);
      EXPECT_LT(kept.error, kept.distance);
    } else {
      EXPECT_NEAR(loss(*cut), best, 1e-6);
    }
    EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, model_, {3, 14, 1, 5, 9}).view(), logits.view()));
    for (const TrainableSlot& slot : cut->pool().trainable().slots)
      EXPECT_THAT(slot.name,
                  testing::AnyOf(testing::StartsWith("fold.group.1."), testing::StartsWith("fold.layer.1.")));
  }
}

TEST_F(Replacing, StreamedPairsGiveTheBlockOfStoredOnes) {
  const StageInputs in = inputs();
  const PairSource streamed = streamed_pairs(model_, kRun);
  std::map<std::vector<int32_t>, std::pair<Tensor, Tensor>> stored;  // by the tokens of a batch
  const PairSource fill = [&](const Context& ctx, const TokenBatch& batch) {
    const StatePair pair = streamed(ctx, batch);
    const std::span<const int32_t> ids = batch.ids.host();
    stored[{ids.begin(), ids.end()}] = {download(pair.input), download(pair.target)};
    return pair;
  };
  const PairSource kept = [&](const Context&, const TokenBatch& batch) -> StatePair {
    const std::span<const int32_t> ids = batch.ids.host();
    const auto& [input, target] = stored.at({ids.begin(), ids.end()});
    return {input.view(), target.view()};
  };
  const auto first = student(), second = student();
  BlockTrainer of_streamed(in, kRun, *first, fill), of_stored(in, kRun, *second, kept);
  train(of_streamed);
  train(of_stored);
  EXPECT_EQ(block_of(*first), block_of(*second));
}

TEST_F(Replacing, BackpropagationThatEndsAtTheBlockIsThatOfTheWholeModel) {
  const StageInputs in = inputs();
  const PackedBatch batch = in.data.batch(std::vector<int64_t>{0, 1, 2}, 0);
  const auto cut = student();
  const auto grads = [&] {
    const auto values = cut->pool().trainable().grads.as<float>();
    return std::vector<float>(values.begin(), values.end());
  };
  cut->pool().zero_grads();
  const double whole = backprop_batch(own_.ctx, *cut, batch)["nll"];
  const std::vector<float> expected = grads();
  EXPECT_GT(*std::ranges::max_element(expected), 0);
  for (const Keep keep : {Keep::everything, Keep::inputs}) {
    cut->pool().zero_grads();
    EXPECT_EQ(backprop_to_block(own_.ctx, *cut, kRun, batch, keep)["nll"], whole);
    EXPECT_EQ(grads(), expected);
  }
}

TEST_F(Replacing, TheGradientOfTheErrorIsItsDifference) {
  test::TemporaryFolder folder;
  Model::Settings settings = test::tiny_settings(folder.path(), {.layers = 6});
  settings.parameters = settings.activations = DType::f64;
  Model original(settings);
  const test::OwnContext own("reference");
  const StageInputs in = inputs();
  const PackedBatch batch = in.data.batch(std::vector<int64_t>{0, 1, 2}, 0);
  const auto cut = replaced_model(original, kRun, {}, true);
  const PairSource pairs = streamed_pairs(original, kRun);
  const auto error = [&](Backward backward) { return block_error(own.ctx, *cut, kRun, batch, pairs, backward).error; };
  cut->pool().zero_grads();
  error(Backward::yes);
  FlatParams& params = cut->pool().trainable();
  for (const TrainableSlot& slot : params.slots)
    for (int64_t i = slot.begin; i < slot.begin + slot.shape.count(); i += 37) {
      double& value = params.values.as<double>()[static_cast<size_t>(i)];
      const double was = value, h = 1e-5;
      value = was + h;
      const double up = error(Backward::no);
      value = was - h;
      const double numeric = (up - error(Backward::no)) / (2 * h);
      value = was;
      EXPECT_NEAR(element(params.grads, i), numeric, 1e-5 * std::max(1.0, std::abs(numeric))) << slot.name << " " << i;
    }
}

TEST_F(Replacing, OfWhatIsNotFiniteEndsWithoutTheStep) {
  at(block(3).down, 0, 0) = std::numeric_limits<float>::quiet_NaN();
  const StageInputs in = inputs();
  const auto cut = student();
  BlockTrainer trainer(in, kRun, *cut, streamed_pairs(model_, kRun));
  try {
    train(trainer);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("in place of blocks 1 to 3"), HasSubstr("is not finite")));
  }
}

/// The stages as a job runs them.
class ReplaceStage : public Replacing {
 protected:
  StageInputs inputs_of_job(Communicator& world, Model& model, const Context& ctx) {
    StageInputs in = inputs(world, model, ctx);
    for (const std::string_view key : find_stage("replace").keys) in.keys[std::string(key)] = "as in the test";
    return in;
  }
  StageInputs inputs_of_job() { return inputs_of_job(*world_, model_, own_.ctx); }
  StageOutcome run(const StageInputs& in, const std::string& name) {
    create_folder(folder_ / "compress");
    StageOutcome outcome = find_stage(name).run(in);
    if (in.is_root())
      write_text_file(in.folder / find_stage(name).file, outcome.text.empty() ? outcome.file.dump() : outcome.text);
    return outcome;
  }
  StageOutcome run_all(const StageInputs& in, const std::vector<std::string>& names) {
    StageOutcome last;
    for (const std::string& name : names) last = run(in, name);
    return last;
  }
  std::string trained() const { return read_text_file(folder_ / "compress/replace.safetensors"); }
};

TEST_F(ReplaceStage, EndsInAFoldedModelWithTheBlockAtTheSizeOfTheRemovedRun) {
  write_own_choices(40);
  const StageInputs in = inputs_of_job();
  std::map<std::string, double> perplexity;
  int64_t parameters = 0;
  for (const std::string way : {"none", "mse", "both"}) {
    fold_.replace = way;
    fold_.group = 1;
    const Json removed = run_all(in, {"probe", "remove"}).file;
    const ReplacedRun found = *run_of(removed);
    if (way != "none") {
      const Json told = run(in, "replace").file;
      EXPECT_EQ(told.at("run").at("first").as_integer(), found.first);
      EXPECT_EQ(told.at("run").at("length").as_integer(), 3);
      EXPECT_EQ(told.at("cosines").items().size(), 4u);
      EXPECT_LT(told.at("relative_error").at("after").as_number(), told.at("relative_error").at("before").as_number());
    }
    const FoldPlan plan = parse_fold_plan(run(in, "group").text, "plan");
    EXPECT_EQ(plan.groups[static_cast<size_t>(found.first)].values == GroupValues::trained, way != "none");
    const Json shared = run(in, "share").file;
    const auto model = loaded();
    EXPECT_EQ(folded_base(model->sharing())->state().name, "removed");
    const auto& points = folded_base(model->sharing())->state().perplexity;
    perplexity[way] = points.at(way == "none" ? "removed" : "replaced");
    EXPECT_NEAR(std::exp(loss(*model)), perplexity[way], 1e-9);
    if (way == "none") parameters = shared.at("parameters_stored").as_integer();
    EXPECT_EQ(shared.at("parameters_stored").as_integer(), parameters);
    if (way != "none") {
      EXPECT_EQ(points.at("removed"), perplexity["none"]);
      const auto saved = SafetensorsReader::open(folder_ / "compress/replace.safetensors");
      const auto whole = SafetensorsReader::open(folder_ / "sharing/fold.safetensors");
      for (const char* type : {"mlp.down_proj", "self_attn.q_proj"})
        EXPECT_TRUE(test::same_bytes(whole.at(fmt::format("fold.group.{}.{}.weight", found.first, type)),
                                     saved.at(fmt::format("fold.group.{}.weight", type))));
      EXPECT_TRUE(test::same_bytes(whole.at(fmt::format("fold.layer.{}.input_layernorm.weight", found.first)),
                                   saved.at("fold.layer.input_layernorm.weight")));
    }
  }
  EXPECT_LT(perplexity["mse"], perplexity["none"]);
  EXPECT_LE(perplexity["both"], perplexity["mse"]);
}

TEST_F(ReplaceStage, TheTrainedBlockSharesWithNobodyAndItsInputsCount) {
  const StageInputs in = inputs_of_job();
  fold_.child = "lora";
  fold_.child_rank = 16;
  fold_.remove = 0.17;
  fold_.replace_steps = 60;
  fold_.keep_head = 0;
  fold_.keep_tail = 0;
  fold_.group = 3;
  const ReplacedRun found = *run_of(run_all(in, {"probe", "remove"}).file);
  run(in, "replace");
  const FoldPlan plan = parse_fold_plan(run(in, "group").text, "plan");
  bool is_shared = false;
  for (const FoldGroup& group : plan.groups) {
    if (group.values == GroupValues::trained) {
      EXPECT_EQ(group.blocks, std::vector{found.first});
    }
    is_shared = is_shared || group.blocks.size() > 1;
  }
  EXPECT_TRUE(is_shared);
  const Json shared = run(in, "share").file;
  const auto& points = shared.at("perplexity");
  for (const char* point : {"original", "removed", "replaced", "shared"}) EXPECT_GT(points.at(point).as_number(), 1);
  EXPECT_NEAR(points.at("shared").as_number(), points.at("replaced").as_number(),
              1e-4 * points.at("replaced").as_number())
      << "deltas of full rank lose nothing, beside the trained block neither";
  int64_t stored = 0;
  const auto model = loaded();
  for (SlotId id = 0; id < model->pool().count(); ++id) stored += model->pool().values(id).shape.count();
  EXPECT_EQ(shared.at("parameters_stored").as_integer(), stored) << "also where a delta's rank is above its linear's";
}

/// Beside the original's file the trained block has numbers of its own, which plans count before there are any.
TEST_F(ReplaceStage, PlansCountTheTrainedBlockBesideTheFileOfItsOriginal) {
  const auto dense = test::dense_folder(folder_.path(), {.layers = 6});
  Model original(test::stored_settings(dense));
  fold_.child = "lora";
  fold_.child_rank = 2;
  const StageInputs in = inputs_of_job(*world_, original, own_.ctx);
  run_all(in, {"probe", "remove", "replace", "group", "share"});
  const FoldPlan plan = read_fold_plan(folder_ / "compress/fold_plan.json");
  TrainerConfig trainer;
  trainer.train = train_;
  AdapterConfig adapter;
  adapter.method = "lora";
  fold_.cure = "adapter";
  const CureInputs cure{.trainer = &trainer, .adapter = &adapter};
  StageInputs of_cure = in;
  of_cure.cure = cure;
  const StageSizes sizes{.fold = fold_, .train = train_, .model = original, .cure = cure};
  const auto student = student_of(of_cure), planned = counted_student(sizes, plan);
  EXPECT_EQ(planned->pool().trainable_count(), student->pool().trainable_count());
  EXPECT_EQ(planned->pool().frozen_count(), student->pool().frozen_count());
  EXPECT_EQ(planned->pool().owned_bytes(), student->pool().owned_bytes());
  EXPECT_GE(counted_student(sizes, widest_plan(sizes))->pool().owned_bytes(), student->pool().owned_bytes());
  fold_.replace = "none";
  FoldPlan own = plan;
  for (FoldGroup& group : own.groups)
    if (group.values == GroupValues::trained) group.values = GroupValues::own;
  EXPECT_LT(counted_student(sizes, own)->pool().owned_bytes(), student->pool().owned_bytes());
}

TEST_F(ReplaceStage, GoesOnAfterAStopWithTheSameBytes) {
  fold_.replace = "both";
  checkpoint_.every = 3;
  run_all(inputs_of_job(), {"probe", "remove"});
  const std::string straight = run(inputs_of_job(), "replace").file.dump(), block = trained();
  for (const int64_t asked : {2, 9, 60, 100, 131, 134}) {
    std::filesystem::remove(folder_ / "compress/replace-state.h5");
    StageInputs in = inputs_of_job();
    int64_t calls = 0;
    in.stop_requested = [&] { return ++calls == asked; };
    EXPECT_THROW(run(in, "replace"), Stopped) << asked;
    EXPECT_EQ(run(inputs_of_job(), "replace").file.dump(), straight) << asked;
    EXPECT_EQ(trained(), block) << asked;
  }
  const auto half = find_stage("replace").half_done(folder_ / "compress");
  ASSERT_TRUE(half);
  EXPECT_THAT(half->reads, testing::Contains(testing::Key("fold.replace_lr"))) << "compared before any stage is run";
  StageInputs other = inputs_of_job();
  other.keys["fold.replace_lr"] = "another";
  EXPECT_THROW(run(other, "replace"), UserError);
  write_text_file(folder_ / "compress/replace-state.h5", "no state");
  try {
    run(inputs_of_job(), "replace");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("replace-state.h5: "), HasSubstr("the training begins again")));
  }
}

TEST_F(ReplaceStage, RanksTrainTheSameBlock) {
  fold_.replace = "both";
  run_all(inputs_of_job(), {"probe", "remove"});
  run(inputs_of_job(), "replace");
  const auto values_of = [&] {
    std::vector<float> all;
    const auto saved = SafetensorsReader::open(folder_ / "compress/replace.safetensors");
    for (const std::string& name : saved.names()) {
      const auto values = saved.at(name).as<float>();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  const std::vector<float> one = values_of();
  for (const int ranks : {2, 3}) {
    std::string first;
    for (int again = 0; again < 2; ++again) {
      std::filesystem::remove(folder_ / "compress/replace-state.h5");
      test::on_thread_ranks(ranks, [&](Communicator& world) {
        const test::TemporaryFolder folder;
        const test::OwnContext own;
        Model model(test::tiny_settings(folder.path(), {.layers = 6, .initializer_range = 0.3}));
        run(inputs_of_job(world, model, own.ctx), "replace");
      });
      if (again == 0) first = trained();
      EXPECT_EQ(trained(), first) << ranks;
    }
    const std::vector<float> many = values_of();
    ASSERT_EQ(many.size(), one.size());
    for (size_t i = 0; i < one.size(); ++i) ASSERT_NEAR(many[i], one[i], 1e-3) << ranks << " " << i;
  }
}

TEST_F(ReplaceStage, OfNothingRemovedTrainsNothing) {
  fold_.remove = 0;
  const StageInputs in = inputs_of_job();
  const StageOutcome outcome = run_all(in, {"probe", "remove", "replace"});
  EXPECT_EQ(outcome.tokens, 0);
  EXPECT_THAT(outcome.file.dump(), HasSubstr("\"run\":null"));
  EXPECT_THAT(said_, testing::Contains(HasSubstr("there is no run to replace")));
  run_all(in, {"group", "share"});
  EXPECT_EQ(loaded()->decoder().num_layers(), 6);
}

}  // namespace
}  // namespace tessera
