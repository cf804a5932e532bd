// What every estimator of the registry has to keep: plans, rows, bytes,
// and a run that goes on as if it had not been left.

#include "train/estimator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/error.h"
#include "score/forward.h"
#include "support/tiny_model.h"
#include "train/spsa/spsa_estimator.h"
#include "train/spsa/spsa_inputs.h"
#include "train/steps.h"
#include "train/trainer.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

PackedDataset rows_of(int64_t documents) {
  TokenData data;
  for (int64_t d = 0; d < documents; ++d) {
    for (int64_t t = 0; t < 12; ++t) {
      data.tokens.push_back(static_cast<int32_t>((5 * d + 2 * t) % 23));
      data.scored.push_back(1);
    }
    data.ends.push_back(static_cast<int64_t>(data.tokens.size()));
  }
  data.hash = "made up";
  return PackedDataset(data, 12, 1);
}

/// The sections that estimators read, as a recipe gives them.
struct Sections {
  TrainerConfig trainer;
  RunConfig run;
  AdapterConfig adapter;
  SharingConfig sharing;

  Sections(const std::string& estimator, const std::string& toml) {
    Recipe recipe = Recipe::from_text(toml, "recipe.toml", {"train.estimator=" + estimator});
    recipe.read("train", trainer.train);
    recipe.read("optimizer", trainer.optimizer);
    for (const auto& each : trainer.estimators.all())
      if (!each->section().empty()) recipe.read(each->section(), *each);
    recipe.read("adapter", adapter);
    recipe.read("sharing", sharing);
    recipe.read("run", run);
    estimator_of(trainer).set_defaults(recipe, trainer);
    estimator_of(trainer).check(recipe, {trainer, run, adapter, sharing});
    recipe.finish();
  }
};

std::string faults_of(const std::string& estimator, const std::string& toml) {
  try {
    Sections(estimator, toml);
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

/// A training of an estimator with a tiny model, alone.
class Training {
 public:
  Training(const std::string& estimator, const std::string& method, const std::string& toml = "")
      : sections_(estimator, "[train]\nbatch = 4\nsequence_length = 12\nsteps = 4\n" + toml),
        method_(method),
        world_(self_communicator()),
        data_(rows_of(20)),
        report_(nullptr, Progress::none) {
    config().optimizer.lr = 1e-2;
    config().optimizer.schedule = "constant";
  }
  TrainerConfig& config() { return sections_.trainer; }
  const Estimator& estimator() { return estimator_of(config()); }

  std::unique_ptr<Model> model(Memory memory = Memory::held) const {
    Model::Settings settings = test::tiny_settings(folder_.path());
    settings.adapter.method = method_;
    settings.adapter.rank = 2;
    settings.train_base = method_ == "none";
    settings.gradients = estimator_of(sections_.trainer).has_gradients();
    settings.memory = memory;
    return std::make_unique<Model>(settings);
  }
  StepMemory plan(Model& model) { return estimator().plan(config(), model, 1, kThreads); }

  /// Goes on with the run in the folder of that name, or begins it, and is asked to stop in step `last` of this call.
  /// @return the trained values
  std::string train(const std::string& run, int last) {
    const auto own = model();
    const RunFolder folder(folder_ / run, "auto");
    const StepMemory memory = plan(*own);
    Arena arena(std::max(memory.activations, plan_score_bytes(*own, 4, 12, kThreads)));
    const Context ctx{
        .device = {}, .stream = {}, .kernels = kernels_for({}, "cpu"), .scratch = arena, .threads = kThreads};
    std::vector<std::string> notices;
    const auto start = newest_checkpoint(folder / "checkpoints", notices);
    const auto prepared = prepare(*own, folder.path(), ctx);
    int asked = 0;
    outcome_ = run_training({.config = config(),
                             .model = *own,
                             .data = data_,
                             .world = *world_,
                             .ctx = ctx,
                             .report = report_,
                             .folder = &folder,
                             .resume_from = start.value_or(""),
                             .stop_requested = [&] { return ++asked >= last; },
                             .run_path = folder.path(),
                             .prepared = prepared.get()});
    peak_ = arena.peak_bytes();
    const TensorView values = own->pool().trainable().values;
    return {static_cast<const char*>(values.data), static_cast<size_t>(values.bytes())};
  }
  const TrainOutcome& outcome() const { return outcome_; }
  int64_t peak() const { return peak_; }

  /// Reports of steps that are taken without a loop around them.
  std::vector<StepReport> steps(Model& model, int64_t count, test::OwnContext& own) {
    const auto prepared = prepare(model, folder_ / "steps", own.ctx);
    const TrainerInputs in{.config = config(),
                           .model = model,
                           .data = data_,
                           .world = *world_,
                           .ctx = own.ctx,
                           .report = report_,
                           .run_path = folder_ / "steps",
                           .prepared = prepared.get()};
    const auto stepper = estimator().make(in);
    EXPECT_FALSE(stepper->restore());
    std::vector<StepReport> reports;
    for (int64_t step = 1; step <= count; ++step) reports.push_back(*stepper->take(step));
    return reports;
  }
  Communicator& world() { return *world_; }

 private:
  static constexpr int kThreads = 2;

  /// What the command line does before a training, for estimators that need something.
  std::unique_ptr<Preparation> prepare(Model& model, const fs::path& run, const Context& ctx) {
    if (config().train.estimator != "spsa") return nullptr;
    const SpsaConfig& spsa = spsa_config(config());
    auto inputs = std::make_unique<SpsaInputs>();
    inputs->members = transport_named(spsa.transport).join(standing_of(spsa, {}));
    inputs->shared = run.string() + "-shared";
    inputs->header = make_header(spsa, config().train, config().optimizer, model, "",
                                 static_cast<int>(inputs->members->machines()), kNewestRules, run / "log", ctx);
    inputs->prober = make_prober(spsa, model);
    return inputs;
  }

  test::TemporaryFolder folder_;
  Sections sections_;
  std::string method_;
  std::unique_ptr<Communicator> world_;
  PackedDataset data_;
  Reporter report_;
  TrainOutcome outcome_;
  int64_t peak_ = 0;
};

std::vector<std::string> names_and_methods() {
  std::vector<std::string> all;
  for (const std::string& name : estimator_names())
    for (const char* method : {"none", "lora"}) all.push_back(name + "_" + method);
  return all;
}

class EachEstimator : public testing::TestWithParam<std::string> {
 protected:
  EachEstimator() : name_(GetParam().substr(0, GetParam().rfind('_'))) {}
  Training training(const std::string& toml = "") const {
    return Training(name_, GetParam().substr(GetParam().rfind('_') + 1), toml);
  }
  std::string name_;
};
INSTANTIATE_TEST_SUITE_P(Estimators, EachEstimator, testing::ValuesIn(names_and_methods()),
                         [](const auto& info) { return info.param; });

TEST_P(EachEstimator, ARunThatWasLeftGoesOnAsIfItHadNotBeen) {
  for (const char* optimizer : {"adamw", "sgd"}) {
    Training own(name_, GetParam().substr(GetParam().rfind('_') + 1),
                 fmt::format("[optimizer]\nname = \"{}\"\nmomentum = 0.9\n", optimizer));
    const std::string straight = own.train("straight", 100);
    EXPECT_FALSE(own.outcome().stopped);
    const std::string half = own.train("left", 2);
    EXPECT_TRUE(own.outcome().stopped);
    EXPECT_EQ(own.outcome().meta.step, 2);
    EXPECT_NE(half, straight);
    EXPECT_EQ(own.train("left", 100), straight) << optimizer;
    EXPECT_EQ(own.outcome().meta.step, 4);
    EXPECT_EQ(own.outcome().meta.rows_consumed, 4 * rows_per_step(own.config(), 1));
  }
}

TEST_P(EachEstimator, StepsTakeTheRowsThatAreTold) {
  Training own = training();
  const auto model = own.model();
  test::OwnContext context;
  for (const StepReport& report : own.steps(*model, 2, context)) EXPECT_EQ(report.rows, rows_per_step(own.config(), 1));
}

TEST_P(EachEstimator, PlansWithACountedModelWhatAStepTakes) {
  Training own = training();
  const auto held = own.model(), counted = own.model(Memory::counted);
  const StepMemory plan = own.plan(*counted), again = own.plan(*held);
  EXPECT_EQ(plan.optimizer, again.optimizer);
  EXPECT_EQ(plan.activations, again.activations);
  EXPECT_EQ(plan.copies, again.copies);
  EXPECT_EQ(plan.handing_over, 0) << "alone";
  own.train("run", 100);  // in an arena of that size
  EXPECT_GT(own.peak(), plan.activations / 2);
}

TEST_P(EachEstimator, HasMemoryForGradientsWhereItTakesThem) {
  Training own = training();
  EXPECT_EQ(own.model()->pool().trainable().grads.empty(), !own.estimator().has_gradients());
}

TEST_P(EachEstimator, SaysHowAStepTakesLessMemory) {
  Training own = training();
  const LessMemory less = own.estimator().less_memory(own.config());
  EXPECT_THAT(less.way, testing::AnyOf("", HasSubstr("train."), HasSubstr(own.estimator().section() + ".")));
}

TEST_P(EachEstimator, TakesARecipeThatLeavesItsKeysOut) { EXPECT_EQ(faults_of(name_, ""), ""); }

TEST(Estimators, HaveNamesAndSectionsOfTheirOwn) {
  std::map<std::string, int> names, sections;
  for (const std::string& name : estimator_names()) EXPECT_EQ(++names[name], 1) << name;
  const Estimators estimators;
  for (const auto& estimator : estimators.all())
    EXPECT_TRUE(estimator->section().empty() || ++sections[estimator->section()] == 1) << estimator->section();
  for (const EstimatorKind& kind : estimator_kinds()) EXPECT_FALSE(kind.help.empty()) << kind.name;
}

TEST(Estimators, RefuseWhatTheyCannotTrainWith) {
  const std::string no_clip = "[train]\nclip = 2.0\n",
                    layers = "[spsa]\nperturb = \"layers\"\n[adapter]\nmethod = \"lora\"";
  EXPECT_THAT(faults_of("spsa", no_clip), HasSubstr("train.clip bounds gradients, and SPSA has none"));
  EXPECT_EQ(faults_of("backprop", no_clip), "");
  EXPECT_THAT(faults_of("spsa", layers), HasSubstr("each trained for themselves"));
  EXPECT_EQ(faults_of("backprop", layers), "") << "a section that the recipe's estimator does not read";
  EXPECT_THAT(faults_of("spsa", "[spsa]\ntransport = \"file\"\nmachine = 3\nmachines = 3"),
              HasSubstr("machines are numbered 0 .. 2"));
  EXPECT_EQ(faults_of("spsa", "[spsa]\ntransport = \"mpi\"\nmachine = 3\nmachines = 3"), "") << "nobody reads these";
}

TEST(Estimators, RanksOfAJobDoNotShareAFolder) {
  const Sections sections("spsa", "[spsa]\ntransport = \"file\"\n");
  const Recipe recipe = Recipe::from_text("", "recipe.toml");
  EXPECT_NO_THROW(estimator_of(sections.trainer).check_ranks(recipe, 1));
  EXPECT_THROW(estimator_of(sections.trainer).check_ranks(recipe, 2), UserError);
}

TEST(Estimators, SetTheDefaultsThatAreOthersWithThem) {
  EXPECT_EQ(Sections("spsa", "").trainer.optimizer.momentum, 0);
  EXPECT_EQ(Sections("spsa", "[optimizer]\nmomentum = 0.5\n").trainer.optimizer.momentum, 0.5);
  EXPECT_EQ(Sections("backprop", "").trainer.optimizer.momentum, OptimizerConfig{}.momentum);
}

TEST(Estimators, CountRowsOverAllWhoTakePart) {
  const std::string batch = "[train]\nbatch = 6\n", probes = batch + "[spsa]\nprobes = 5\nmachines = 7\n";
  EXPECT_EQ(rows_per_step(Sections("backprop", batch).trainer, 3), 6);
  EXPECT_EQ(rows_per_step(Sections("spsa", probes).trainer, 3), 6 * 3 * 5);
  EXPECT_EQ(rows_per_step(Sections("spsa", probes + "sides = \"one\"\n").trainer, 3), 6 * 3);
  EXPECT_EQ(rows_per_step(Sections("spsa", probes + "transport = \"file\"\n").trainer, 1), 6 * 7 * 5);
}

TEST(Estimators, TellTheBytesThatARankSends) {
  test::OwnContext context;
  Training gradients("backprop", "lora");
  const auto a = gradients.model();
  gradients.steps(*a, 2, context);
  EXPECT_EQ(gradients.world().traffic().all_reduce.bytes, 2 * gradients.estimator().wire_bytes(*a));

  constexpr int64_t kOffer = 8;  // of machine 0
  Training votes("spsa", "lora", "[spsa]\nprobes = 5\nvotes = \"float32\"\n");
  const auto b = votes.model();
  for (const StepReport& report : votes.steps(*b, 2, context))
    EXPECT_EQ(report.extra.at("bytes_up").as_integer(), votes.estimator().wire_bytes(*b) + kOffer);
}

TEST(Estimators, AMachineAloneTrainsAlikeOverEveryTransport) {
  std::vector<std::string> values;
  for (const Transport& transport : transports()) {
    Training own("spsa", "lora", fmt::format("[spsa]\nprobes = 3\ntransport = \"{}\"\n", transport.name));
    values.push_back(own.train("run", 100));
    EXPECT_EQ(values.back(), values.front()) << transport.name;
    own.train("left", 2);
    EXPECT_EQ(own.train("left", 100), values.front()) << transport.name << ", left and gone on";
  }
}

TEST(Estimators, ARunThatSharesAFolderIsBegunAnewInOtherFolders) {
  const auto anew = [](const std::string& toml) { return estimator_of(Sections("spsa", toml).trainer).anew(); };
  EXPECT_TRUE(anew("").by_resume);
  EXPECT_FALSE(anew("[spsa]\ntransport = \"file\"\n").by_resume);
  EXPECT_EQ(anew("[spsa]\ntransport = \"file\"\nshared = \"there\"\n").places, "run.dir and spsa.shared");
}

}  // namespace
}  // namespace tessera
