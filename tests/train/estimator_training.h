#pragma once
// A training by any registered estimator: alone, or as one rank of several.

#include <algorithm>
#include <numeric>

#include "comm/data_groups.h"
#include "score/forward.h"
#include "support/engine.h"
#include "support/tiny_model.h"
#include "support/token_data.h"
#include "train/estimator.h"
#include "train/spsa/spsa_estimator.h"
#include "train/spsa/spsa_inputs.h"
#include "train/steps.h"
#include "train/trainer.h"

namespace tessera::test {

/// The sections that estimators read, as a recipe gives them.
struct EstimatorSections {
  TrainerConfig trainer;
  RunConfig run;
  AdapterConfig adapter;
  SharingConfig sharing;

  /// @throws UserError for all that does not go together
  EstimatorSections(const std::string& estimator, const std::string& toml) {
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

/// Four steps of four rows of a tiny model, whose weights (method "none") or whose LoRA is trained.
class EstimatorTraining {
 public:
  static constexpr int64_t kRows = 4, kLength = 12;

  /// @param world  a rank of it, where there is one
  EstimatorTraining(const std::string& estimator, const std::string& method, const std::string& toml = "",
                    Communicator* world = nullptr)
      : sections_(estimator,
                  fmt::format("[train]\nbatch = {}\nsequence_length = {}\nsteps = 4\n{}", kRows, kLength, toml)),
        method_(method),
        own_world_(world ? nullptr : self_communicator()),
        world_(world ? *world : *own_world_),
        data_(token_data(20, kLength, [](int64_t d, int64_t t) { return (5 * d + 2 * t) % 23; }), kLength, 1),
        report_(nullptr, Progress::none) {
    config().optimizer.lr = 1e-2;
    config().optimizer.schedule = "constant";
    root_ = broadcast_text(world_, folder_.path().string());
  }
  TrainerConfig& config() { return sections_.trainer; }
  const Estimator& estimator() { return estimator_of(config()); }

  std::unique_ptr<Model> model(Memory memory = Memory::held) const {
    Model::Settings settings = tiny_settings(folder_.path());
    settings.adapter.method = method_;
    settings.adapter.rank = 2;
    settings.train_base = method_ == "none";
    settings.gradients = estimator_of(sections_.trainer).has_gradients();
    settings.memory = memory;
    return std::make_unique<Model>(settings);
  }
  StepMemory plan(Model& model) { return estimator().plan(config(), model, world_.size(), threads); }

  /// Goes on with the run in the folder of that name, or begins it, and is asked to stop in step `last` of this call.
  /// @return the trained values
  std::string train(const std::string& run, int last = 1000) {
    const auto own = model();
    const std::filesystem::path path = root_ / run;
    const auto folder = world_.rank() == 0 ? std::make_unique<RunFolder>(path, "auto") : nullptr;
    const StepMemory memory = plan(*own);
    const Engine context("cpu", std::max(memory.activations, plan_score_bytes(*own, kRows, kLength, threads)), threads);
    std::vector<std::string> notices;
    const auto start = folder ? newest_checkpoint(path / "checkpoints", notices) : std::nullopt;
    const std::string resume_from = broadcast_text(world_, start.value_or("").string());
    const auto prepared = prepare(*own, path, context.ctx);
    loss_before_ = mean_loss(*own, context.ctx);
    world_.barrier();
    int asked = 0;
    outcome_ = run_training({.config = config(),
                             .model = *own,
                             .data = data_,
                             .world = world_,
                             .ctx = context.ctx,
                             .report = report_,
                             .folder = folder.get(),
                             .resume_from = resume_from,
                             .stop_requested = [&] { return ++asked >= last; },
                             .run_path = path,
                             .prepared = prepared.get(),
                             .share = data_share_of(world_)});
    peak_ = context.arena.peak_bytes();
    loss_after_ = mean_loss(*own, context.ctx);
    const TensorView values = own->pool().trainable().values;
    return {static_cast<const char*>(values.data), static_cast<size_t>(values.bytes())};
  }
  const TrainOutcome& outcome() const { return outcome_; }
  /// Of scratch, in the last training.
  int64_t peak() const { return peak_; }
  /// Over all rows, of the last training.
  double loss_before() const { return loss_before_; }
  double loss_after() const { return loss_after_; }

  /// Reports of steps that are taken without a loop around them.
  std::vector<StepReport> steps(Model& model, int64_t count, const Context& ctx) {
    const auto prepared = prepare(model, root_ / "steps", ctx);
    const TrainerInputs in{.config = config(),
                           .model = model,
                           .data = data_,
                           .world = world_,
                           .ctx = ctx,
                           .report = report_,
                           .run_path = root_ / "steps",
                           .prepared = prepared.get(),
                           .share = data_share_of(world_)};
    const auto stepper = estimator().make(in);
    EXPECT_FALSE(stepper->restore());
    std::vector<StepReport> reports;
    for (int64_t step = 1; step <= count; ++step) reports.push_back(*stepper->take(step));
    return reports;
  }
  Communicator& world() { return world_; }

  int threads = 2;

 private:
  double mean_loss(Model& model, const Context& ctx) const {
    model.assemble(ctx);
    std::vector<int64_t> rows(static_cast<size_t>(data_.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    LossSums sums;
    for (size_t begin = 0; begin < rows.size(); begin += kRows)
      sums = score_batch(ctx, model, data_.batch(std::span(rows).subspan(begin, kRows), 0), {}, {}, std::move(sums));
    return objective_of("tokens").mean(sums);
  }

  /// What the command line does before a training, for estimators that need something.
  std::unique_ptr<Preparation> prepare(Model& model, const std::filesystem::path& run, const Context& ctx) {
    if (config().train.estimator != "spsa") return nullptr;
    const SpsaConfig& spsa = spsa_config(config());
    auto inputs = std::make_unique<SpsaInputs>();
    inputs->members = transport_named(spsa.transport).join(standing_of(spsa, data_share_of(world_)));
    inputs->shared = run.string() + "-shared";
    inputs->header = make_header(spsa, config().train, config().optimizer, model, "",
                                 static_cast<int>(inputs->members->machines()), kNewestRules, run / "log", ctx);
    inputs->prober = make_prober(spsa, model);
    return inputs;
  }

  TemporaryFolder folder_;
  EstimatorSections sections_;
  std::string method_;
  std::unique_ptr<Communicator> own_world_;
  Communicator& world_;
  std::filesystem::path root_;  // of the runs' folders: rank 0's folder
  PackedDataset data_;
  Reporter report_;
  TrainOutcome outcome_;
  int64_t peak_ = 0;
  double loss_before_ = 0, loss_after_ = 0;
};

}  // namespace tessera::test
