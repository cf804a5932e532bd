// Stage "cure": what it trains and what it leaves alone, what it lowers, going on, ranks, and where its model lies.

#include <gmock/gmock.h>

#include <cmath>

#include "compress/calibration.h"
#include "compress/cured_model.h"
#include "compress/folded_folder.h"
#include "compress/run_stages.h"
#include "compress/stages_bench.h"
#include "core/error.h"
#include "io/files.h"
#include "model/fold/plan_file.h"
#include "support/folds.h"
#include "support/thread_ranks.h"
#include "train/reporter.h"
#include "train/trainer_inputs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CureStage : public test::StagesBench {
 protected:
  CureStage() : report_(nullptr, Progress::none) {
    create_folder(folder_ / "compress");
    fold_.cure = "adapter";
    trainer_.optimizer.lr = 1e-2;
    trainer_.train.batch = 4;
    trainer_.train.steps = 30;
    trainer_.train.sequence_length = 12;
    trainer_.checkpoint.every = 4;
    adapter_.method = "lora";
    adapter_.rank = 4;
    for (float& x : weight(number_of("lm_head.weight")).as<float>()) x *= 4;  // choices that are sure
    write_own_choices(60);
  }

  StageInputs inputs_of_cure() { return inputs_of_cure(model_); }
  StageInputs inputs_of_cure(Model& model) {
    train_ = trainer_.train;
    return inputs_of_cure(*world_, own_.ctx, model);
  }
  /// Also of ranks that are threads: nothing is written here.
  StageInputs inputs_of_cure(Communicator& world, const Context& ctx, Model& model) {
    StageInputs in = inputs(world, model, ctx);
    for (const Stage& stage : stages())
      for (const std::string_view key : stage.keys) in.keys[std::string(key)] = "as it was";
    in.keys["train.steps"] = std::to_string(*trainer_.train.steps);
    in.cure = {.trainer = &trainer_, .adapter = &adapter_, .report = &report_, .folder = run_ ? &*run_ : nullptr};
    return in;
  }
  void share(FoldPlan plan = test::six_layers()) {
    plan.base.fingerprint = model_.base_fingerprint();
    write_fold_plan(folder_ / "compress/fold_plan.json", plan);
    const StageInputs in = inputs_of_cure();
    write_text_file(in.folder / "share.json", find_stage("share").run(in).file.dump());
  }
  StageOutcome cure() { return find_stage("cure").run(inputs_of_cure()); }
  double perplexity(const StageOutcome& outcome, const char* point) const {
    return outcome.file.at("perplexity").at(point).as_number();
  }
  static std::map<std::string, std::vector<double>> numbers(const fs::path& folder) {
    const auto file = SafetensorsReader::open(folder / "fold.safetensors");
    std::map<std::string, std::vector<double>> all;
    for (const std::string& name : file.names())
      for (int64_t i = 0; i < file.at(name).shape.count(); ++i) all[name].push_back(element(file.at(name), i));
    return all;
  }
  std::string bytes(const char* name) const { return read_text_file(folder_ / name); }

  Reporter report_;
  TrainerConfig trainer_;
  AdapterConfig adapter_;
  std::optional<RunFolder> run_;
};

TEST_F(CureStage, TrainsWhatLayersHaveOfTheirOwnAndAnAdapterAndNothingElse) {
  share(test::six_layers({ChildLevel::scale, 0}));
  const StageOutcome outcome = cure();
  EXPECT_LT(perplexity(outcome, "cured"), perplexity(outcome, "shared"));
  const auto before = numbers(folder_ / "compress/shared"), after = numbers(folder_ / "compress/cured");
  int adapters = 0;
  for (const auto& [name, values] : after) {
    if (name.starts_with("fold.cure.")) {
      ++adapters;
      continue;
    }
    EXPECT_EQ(values != before.at(name), name.starts_with("fold.layer.")) << name;
  }
  EXPECT_EQ(adapters, 5 * 7 * 2);
  EXPECT_EQ(bytes("sharing/sharing.json"), bytes("compress/cured/sharing.json"));
  const auto model = loaded("sharing");
  EXPECT_EQ(folded_base(model->sharing())->state().name, "cured");
  EXPECT_EQ(std::exp(calibration_loss(inputs_of_cure(), *model, {})), perplexity(outcome, "cured"));
  EXPECT_EQ(model->sharing().caution(), "");
  EXPECT_EQ(outcome.tokens, 30 * 4 * 12);
}

TEST_F(CureStage, WithoutAnAdapterTrainsTheLayersOwnAlone) {
  adapter_.method = "none";
  share();
  const StageOutcome outcome = cure();
  EXPECT_LT(perplexity(outcome, "cured"), perplexity(outcome, "shared"));
  EXPECT_THAT(said_, testing::Contains(HasSubstr("of its own alone, since adapter.method is \"none\"")));
  EXPECT_EQ(outcome.file.at("parameters_trained").as_integer(), 5 * 2 * 16);
}

TEST_F(CureStage, InFullMovesEveryStoredWeightAndNotTheTeachers) {
  fold_.cure = "full";
  trainer_.optimizer.lr = 3e-3;
  share(test::six_layers({ChildLevel::lora, 2}));
  const std::vector<int32_t> ids = {3, 14, 1, 5, 9};
  const Tensor teachers = test::logits_of(own_.ctx, model_, ids);
  const StageOutcome outcome = cure();
  EXPECT_LT(perplexity(outcome, "cured"), perplexity(outcome, "shared"));
  EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, model_, ids).view(), teachers.view()));
  const auto before = numbers(folder_ / "compress/shared"), after = numbers(folder_ / "compress/cured");
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [name, values] : after) EXPECT_NE(values, before.at(name)) << name;
}

TEST_F(CureStage, ReadsTheFileOfItsTeacherInPlace) {
  const auto dense = test::dense_folder(folder_.path(), {.layers = 6});
  Model original(test::stored_settings(dense));
  write_fold_plan(folder_ / "compress/fold_plan.json", test::six_layers());
  const StageInputs in = inputs_of_cure(original);
  write_text_file(in.folder / "share.json", find_stage("share").run(in).file.dump());
  const auto student = student_of(in);
  const auto place = [](Model& model, const std::string& name) {
    for (size_t i = 0; i < model.decoder().specs().size(); ++i)
      if (model.decoder().specs()[i].name == name)
        return static_cast<const void*>(model.decoder().weight(static_cast<int>(i))->direct({&model.pool()}).data);
    return static_cast<const void*>(nullptr);
  };
  EXPECT_EQ(place(*student, "model.layers.1.mlp.up_proj.weight"), place(original, "model.layers.3.mlp.up_proj.weight"));
  EXPECT_EQ(place(*student, "model.layers.4.mlp.up_proj.weight"), place(original, "model.layers.5.mlp.up_proj.weight"));
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"})
    EXPECT_EQ(place(*student, name), place(original, name)) << name;
  // What the student holds beside the file: values and gradients of what is trained, each slot from a multiple of 128
  // on.
  const auto slots = static_cast<int64_t>(student->pool().trainable().slots.size());
  EXPECT_LE(student->pool().owned_bytes(), 2 * 4 * (student->pool().trainable_count() + 128 * slots) + 4096);
  const std::string file = sha256_of_file(dense / "model.safetensors");
  find_stage("cure").run(in);
  EXPECT_EQ(sha256_of_file(dense / "model.safetensors"), file);
  const auto saved = SafetensorsReader::open(folder_ / "sharing/fold.safetensors");
  EXPECT_TRUE(test::same_bytes(saved.at("fold.group.1.mlp.up_proj.weight"),
                               SafetensorsReader::open_folder(dense).at("model.layers.3.mlp.up_proj.weight")));
  EXPECT_TRUE(saved.contains("fold.cure.lora.model.layers.0.mlp.up_proj.a"));
}

/// Beside the labels alone: of a divergence from the teacher's distribution, too, these few tokens tell little.
TEST_F(CureStage, TheTailsDistanceHelpsAtEqualTokens) {
  share();
  trainer_.train.steps = 20;
  fold_.kl_weight = 0;
  const auto loss = [&](double tail) {
    double sum = 0;
    for (const int64_t seed : {1, 2, 3}) {
      trainer_.train.seed = seed;
      fold_.tail_weight = tail;
      sum += std::log(perplexity(cure(), "cured"));
    }
    return sum / 3;
  };
  EXPECT_LT(loss(1), loss(0) - 0.1);
}

TEST_F(CureStage, GoesOnFromItsCheckpointWithTheSameBytes) {
  run_.emplace(folder_.path(), "auto");
  share();
  const StageOutcome straight = cure();
  const std::string numbers = bytes("compress/cured/fold.safetensors"), description = bytes("sharing/sharing.json");
  for (const int stop : {3, 17}) {
    fs::remove_all(folder_ / "compress/checkpoints");
    share();  // takes the cured model along
    StageInputs in = inputs_of_cure();
    int asked = 0;
    in.stop_requested = [&] { return ++asked > stop; };
    EXPECT_THROW(find_stage("cure").run(in), Stopped);
    EXPECT_FALSE(fs::exists(folder_ / "compress/cured"));
    EXPECT_EQ(cure().file.dump(), straight.file.dump());
    EXPECT_EQ(bytes("compress/cured/fold.safetensors"), numbers);
    EXPECT_EQ(bytes("sharing/sharing.json"), description);
  }
  StageInputs other = inputs_of_cure();
  other.keys["optimizer.lr"] = "another";
  try {
    find_stage("cure").run(other);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("stage cure cannot go on: the recipe differs"),
                                             HasSubstr("optimizer.lr was as it was, now another")));
  }
}

TEST_F(CureStage, RanksTrainTheSame) {
  trainer_.train.steps = 6;
  trainer_.optimizer.name = "sgd";
  share();
  const StageOutcome one = cure();
  const auto numbers_of_one = numbers(folder_ / "compress/cured");
  for (const int ranks : {2, 3}) {
    std::vector<double> perplexities(static_cast<size_t>(ranks));
    test::on_thread_ranks(ranks, [&](Communicator& world) {
      test::OwnContext own;
      const StageInputs in = inputs_of_cure(world, own.ctx, model_);
      perplexities[static_cast<size_t>(world.rank())] = perplexity(find_stage("cure").run(in), "cured");
    });
    for (const double found : perplexities) EXPECT_NEAR(found, perplexity(one, "cured"), 1e-6 * found);
    const auto others = numbers(folder_ / "compress/cured");
    for (const auto& [name, values] : numbers_of_one)
      for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(others.at(name)[i], values[i], 1e-6) << name;
  }
}

/// Stages that are run again leave RUN/sharing at what is newest.
TEST_F(CureStage, TheNewestModelLiesInTheRunsFolder) {
  run_.emplace(folder_.path(), "auto");
  fold_.selector = "bi";
  fold_.remove = 0.17;
  fold_.keep_head = 1;
  trainer_.train.steps = 4;
  using enum StageReport::How;
  const auto how = [&](const char* until = "cure") {
    fold_.until = until;
    std::map<std::string, StageReport::How> reports;
    for (const StageReport& report : run_stages(inputs_of_cure())) reports[report.name] = report.how;
    return reports;
  };
  how("share");
  EXPECT_EQ(bytes("sharing/sharing.json"), bytes("compress/shared/sharing.json"));
  EXPECT_EQ(how().at("cure"), run);
  EXPECT_EQ(bytes("sharing/sharing.json"), bytes("compress/cured/sharing.json"));
  const std::string cured = bytes("sharing/fold.safetensors");
  EXPECT_EQ(how().at("cure"), done_before);
  EXPECT_EQ(how("share").at("share"), done_before);
  EXPECT_EQ(bytes("sharing/fold.safetensors"), cured) << "what is newer stays";
  fs::remove_all(folder_ / "sharing");
  how();
  EXPECT_EQ(bytes("sharing/fold.safetensors"), cured);
  fs::remove(folder_ / "compress/shared/sharing.json");
  const auto again = how();
  EXPECT_EQ(again.at("share"), run);
  EXPECT_EQ(again.at("cure"), run) << "from its last checkpoint";
  EXPECT_EQ(bytes("sharing/fold.safetensors"), cured);
}

/// The schedule is that of the larger number of steps, as in a training: at one rate it makes no difference.
TEST_F(CureStage, ThatIsDoneGoesOnToMoreSteps) {
  run_.emplace(folder_.path(), "auto");
  fold_.selector = "bi";
  fold_.remove = 0.17;
  fold_.keep_head = 1;
  fold_.until = "cure";
  trainer_.optimizer.schedule = "constant";
  const auto cured_in = [&](int64_t steps) {
    trainer_.train.steps = steps;
    said_.clear();
    const auto reports = run_stages(inputs_of_cure());
    EXPECT_EQ(reports.back().name, "cure");
    EXPECT_EQ(reports.back().how, StageReport::How::run);
    EXPECT_EQ(Json::parse(bytes("compress/cure.json"), "cure").at("steps").as_integer(), steps);
    return bytes("sharing/fold.safetensors");
  };
  const std::string straight = cured_in(9);
  for (const char* made : {"compress", "sharing"}) fs::remove_all(folder_ / made);
  EXPECT_NE(cured_in(5), straight);
  EXPECT_EQ(cured_in(9), straight);
  EXPECT_THAT(said_,
              testing::Contains(HasSubstr("train.steps was 5, now 9; the learning rate of step 6 is 0.01, that of "
                                          "step 5 was 0.01")));
  trainer_.optimizer.schedule = "linear";
  cured_in(11);
  EXPECT_THAT(said_, testing::Contains(HasSubstr("the learning rate of step 10 is 0.00182")));
  trainer_.train.steps = 10;
  EXPECT_THROW(run_stages(inputs_of_cure()), UserError);
}

/// A crash between the files of a lengthened model and its line leaves RUN/sharing with the model before it.
TEST_F(CureStage, KnowsItsOwnModelsByTheJournal) {
  run_.emplace(folder_.path(), "auto");
  fold_.selector = "bi";
  fold_.remove = 0.17;
  fold_.keep_head = 1;
  fold_.until = "cure";
  trainer_.train.steps = 4;
  run_stages(inputs_of_cure());
  const std::string cured = bytes("sharing/fold.safetensors");
  write_text_file(folder_ / "compress/cured/sharing.json", bytes("compress/cured/sharing.json") + " ");
  fs::remove(folder_ / "compress/cured/fold_plan.json");
  fs::remove(folder_ / "sharing/fold_plan.json");  // so that it is no copy of what is lost
  EXPECT_EQ(run_stages(inputs_of_cure()).back().how, StageReport::How::run);
  EXPECT_EQ(bytes("sharing/fold.safetensors"), cured);
  EXPECT_EQ(bytes("sharing/sharing.json"), bytes("compress/cured/sharing.json"));
}

TEST_F(CureStage, DoesNotWriteOverWhatAnotherJobHasTrained) {
  trainer_.train.steps = 2;
  share();
  const auto model = loaded("sharing");
  folded_base(model->sharing())->set_state({"cured", {}});
  save_sharing(folder_ / "sharing", *model);
  EXPECT_THROW(cure(), UserError);
}

}  // namespace
}  // namespace tessera
