// train.estimator = "backprop": gradients of the summed loss, reduced over the ranks, clipped, handed to the optimizer.

#include <cmath>
#include <utility>

#include "comm/data_groups.h"
#include "core/error.h"
#include "kernels/rounding.h"
#include "train/backprop.h"
#include "train/divergence.h"
#include "train/estimator.h"
#include "train/gradients.h"
#include "train/steps.h"
#include "train/trained_loss.h"

namespace tessera {
namespace {

class BackpropStepper final : public Stepper {
 public:
  explicit BackpropStepper(const TrainerInputs& in)
      : in_(in),
        params_(in.model.pool().trainable()),
        optimizer_(
            make_optimizer(in.config.optimizer, params_.values.shape.count(), in.rules, in.model.pool().device())),
        micro_rows_(micro_batch_rows(in.config.train, in.share.count)),
        retention_{.keep = in.config.checkpoint.keep} {
    require_groups_of_one(in.world, in.share);  // gradients and losses are summed over all ranks
  }

  std::optional<Restored> restore() override {
    std::optional<Restored> saved;
    if (!in_.resume_from.empty()) {
      saved = Restored{.meta = receive_checkpoint(in_.resume_from, in_.world, params_, *optimizer_)};
      saved->owes_evaluation = saved->meta.owes_evaluation != 0;
      rows_consumed_ = saved->meta.rows_consumed;
      retention_.gone_on_from = saved->meta.step;
      in_.report.say(fmt::format("going on from step {} ({})", saved->meta.step, in_.resume_from.filename().string()));
    }
    in_.model.assemble(in_.ctx);
    return saved;
  }

  std::optional<StepReport> take(int64_t step) override {
    require_exact_rounding(in_.ctx);
    in_.model.pool().zero_grads();
    std::vector<double> mine = local_gradients(step);
    all_reduce_grads(in_.world, params_);
    // The wish to stop travels with the sums: every rank sees it in the same step, without a message of its own.
    mine.push_back(in_.stop_requested && in_.stop_requested() ? 1 : 0);
    const std::vector<double> sums = sum_over_ranks(in_.world, mine);
    // A batch may have no token to score at all; a step of nothing is then divided by one.
    const double loss = sums[0], scored = std::max(1.0, sums[1]);
    // The gradients are of the summed loss: divided by the count, their norm is that of the mean's gradient.
    const double norm = std::sqrt(squared_norm(in_.ctx, params_)) / scored;
    stop_if_broken(step, loss, norm);
    // Clipping, too, is a factor only: it is handed to the optimizer with the division by the count, and the gradients
    // are not written again.
    const double clip = in_.config.train.clip, factor = clip > 0 && norm > clip ? clip / norm : 1.0;
    const auto lr = static_cast<float>(learning_rate(in_.config.optimizer, step, total_steps(in_), in_.rules));
    optimizer_->step(in_.ctx, params_, {step, lr, static_cast<float>(factor / scored)});
    // Weights that are assembled from the pool follow its new values.
    in_.model.assemble(in_.ctx);
    rows_consumed_ += in_.config.train.batch;
    StepReport report{.loss = loss / scored,
                      .lr = lr,
                      .rows = in_.config.train.batch,
                      .scored = static_cast<int64_t>(sums[1]),
                      .stop = sums.back() > 0,
                      .note = {}};
    if (in_.loss) tell_parts(std::span(sums).subspan(2), scored, report);
    report.extra.set("grad_norm", norm);
    report.note += fmt::format("grad {:.3f}", norm);
    return report;
  }

  void checkpoint(const CheckpointMeta& meta, bool is_best) override {
    try {
      require_finite_state(meta.step, params_, *optimizer_);
    } catch (const UserError& broken) {
      throw UserError(broken.where(), broken.message(), way_out_of_divergence());
    }
    if (!in_.folder) return;
    const std::filesystem::path to = in_.checkpoints.empty() ? *in_.folder / "checkpoints" : in_.checkpoints;
    save_checkpoint(to, meta, params_, *optimizer_, retention_, is_best);
  }

  std::string way_out_of_divergence() const override {
    if (!in_.way_out.empty()) return in_.way_out;
    return lower_rate_from_checkpoint(in_, in_.config.train.clip == 0 ? " train.clip=1" : "");
  }

 private:
  /// This rank's part: the summed loss, the scored tokens, and the parts that the loss has.
  std::vector<double> local_gradients(int64_t step) {
    const RowShare share = row_share(in_.config.train.batch, in_.share);
    const auto rows = step_rows(in_.data, in_.first_row + rows_consumed_, share);
    StepSums sums;
    for (int64_t begin = 0; begin < static_cast<int64_t>(rows.size()); begin += micro_rows_) {
      const int64_t count = std::min(micro_rows_, static_cast<int64_t>(rows.size()) - begin);
      // Counted from the global batch's first row: a row's dropout mask does not depend on who computes it, and with
      // whom.
      add_batch(in_.data.batch(std::span(rows).subspan(begin, count), share.begin + begin), step, sums);
    }
    // Adapters gather gradients of what they assembled; now these reach the pool.
    if (in_.model.bound_adapter()) in_.model.bound_adapter()->finish_backward(in_.ctx);
    return numbers_of(sums);
  }

  /// They go on from one micro-batch to the next, row after row: how a step is cut does not show in them.
  struct StepSums {
    LossSums rows{};             // without a loss of its own
    TrainedLoss::Sums taught{};  // with one
  };

  void add_batch(const PackedBatch& batch, int64_t step, StepSums& sums) {
    const BackpropOptions options{
        .checkpoint_activations = in_.config.train.checkpoint_activations,
        .dropout = {
            .on = true, .seed = static_cast<uint64_t>(in_.config.train.seed), .step = static_cast<uint64_t>(step)}};
    if (in_.loss)
      sums.taught = in_.loss->add_gradients(in_.ctx, in_.model, batch, options, std::move(sums.taught));
    else
      sums.rows = backprop_batch(in_.ctx, in_.model, batch, options, std::move(sums.rows));
  }

  std::vector<double> numbers_of(StepSums& sums) const {
    if (!in_.loss) return {sums.rows["nll"], sums.rows["scored"]};
    sums.taught.parts.resize(in_.loss->parts().size());  // a rank may have had no row
    std::vector<double> numbers{in_.loss->lowered(sums.taught), sums.taught.scored};
    numbers.insert(numbers.end(), sums.taught.parts.begin(), sums.taught.parts.end());
    return numbers;
  }

  /// Means of the loss's parts, in metrics and in words.
  void tell_parts(std::span<const double> sums, double scored, StepReport& report) const {
    const std::vector<std::string> names = in_.loss->parts();
    for (size_t i = 0; i < names.size(); ++i) {
      report.extra.set(names[i], sums[i] / scored);
      report.note += fmt::format("{} {:.4f}  ", names[i], sums[i] / scored);
    }
  }

  /// Before anything is changed: the weights stay as the last good step left them.
  void stop_if_broken(int64_t step, double loss, double norm) {
    if (std::isfinite(loss) && std::isfinite(norm)) return;
    refuse_broken_base(in_.model, step);
    throw UserError(fmt::format("step {}", step), "the loss or the gradient is not finite: " + name_broken(in_.model),
                    "the step was not taken; " + way_out_of_divergence());
  }

  const TrainerInputs& in_;
  FlatParams& params_;
  std::unique_ptr<Optimizer> optimizer_;
  int64_t micro_rows_, rows_consumed_ = 0;
  Retention retention_;
};

class Backprop final : public Estimator {
 public:
  bool has_gradients() const override { return true; }
  int64_t rows_per_step(const TrainConfig& train, int) const override { return train.batch; }
  std::unique_ptr<Stepper> make(const TrainerInputs& in) const override {
    return std::make_unique<BackpropStepper>(in);
  }

  StepMemory plan(const TrainerConfig& config, Model& model, int shares, int threads) const override {
    const TrainConfig& train = config.train;
    return {.optimizer = optimizer_state_bytes(config.optimizer, model.pool().trainable().values.shape.count()),
            .activations =
                plan_backprop_bytes(model, micro_batch_rows(train, shares), train.sequence_length, threads,
                                    {.checkpoint_activations = train.checkpoint_activations, .dropout = {.on = true}})};
  }
  LessMemory less_memory(const TrainerConfig& config) const override {
    return {config.train.checkpoint_activations ? "" : "set train.checkpoint_activations = true"};
  }

  Passes passes() const override { return {.forward = 1, .backward = 1}; }
  int64_t wire_bytes(Model& model) const override {
    return static_cast<int64_t>(sizeof(float)) * model.pool().trainable_count();
  }
  Words words() const override { return {.sent = "gradients", .sent_in_step = "all-reduced a step"}; }
};

}  // namespace

std::unique_ptr<Estimator> make_backprop() { return std::make_unique<Backprop>(); }

}  // namespace tessera
