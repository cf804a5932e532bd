#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <cstring>

#include "kernels/elementwise.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Sums a few numbers over the ranks, in rank order: the control plane, apart from gradients.
template <size_t N> std::array<double, N> sum_over_ranks(Communicator& world, const std::array<double, N>& mine) {
  std::array<double, N> total{};
  for (const auto& bytes : world.all_gather(std::as_bytes(std::span(mine)))) {
    std::array<double, N> other;
    std::memcpy(other.data(), bytes.data(), sizeof(other));
    for (size_t i = 0; i < N; ++i) total[i] += other[i];
  }
  return total;
}

LossSums sum_over_ranks(Communicator& world, LossSums sums) {
  std::array<double, 8> numbers{};
  size_t i = 0;
  LossSums::visit([&](const char*, auto member) { numbers.at(i++) = static_cast<double>(sums.*member); });
  numbers = sum_over_ranks(world, numbers);
  i = 0;
  LossSums::visit([&](const char*, auto member) {
    sums.*member = static_cast<std::decay_t<decltype(sums.*member)>>(numbers.at(i++));
  });
  return sums;
}

/// Gradients of all slots summed over the ranks. The gaps between slots are not sent.
void all_reduce_grads(Communicator& world, FlatParams& params, std::vector<float>& packed) {
  if (world.size() == 1 && params.slots.empty()) return;
  const auto grads = params.grads.as<float>();
  packed.clear();
  for (const TrainableSlot& slot : params.slots)
    packed.insert(packed.end(), grads.begin() + slot.begin, grads.begin() + slot.begin + slot.shape.count());
  world.all_reduce_sum(std::span<float>(packed));
  auto from = packed.begin();
  for (const TrainableSlot& slot : params.slots) {
    std::copy(from, from + slot.shape.count(), grads.begin() + slot.begin);
    from += slot.shape.count();
  }
}

/// The first number of the pool, else of its gradients, that is not finite, as text. One broken value breaks every gradient, so
/// values are looked at first.
std::string name_broken(Model& model) {
  const FlatParams& params = model.pool().trainable();
  for (const auto& [kind, numbers] : {std::pair{"value", params.values}, std::pair{"gradient", params.grads}})
    for (const TrainableSlot& slot : params.slots)
      for (int64_t i = 0; i < slot.shape.count(); ++i) {
        const double number = element(numbers, slot.begin + i);
        if (std::isfinite(number)) continue;
        return fmt::format("{} {} of {}", kind, number,
                           model.adapter() ? model.adapter()->readers(slot.name, i)
                                           : fmt::format("weight {} element {}", slot.name, i));
      }
  return "the loss of a batch, while all weights and gradients are finite";
}

class Loop {
 public:
  explicit Loop(const TrainerInputs& in)
      : in_(in),
        params_(in.model.pool().trainable()),
        optimizer_(make_optimizer(in.config.optimizer, params_.values.shape.count())),
        steps_(total_steps(in.config.train, in.data)),
        micro_rows_(micro_batch_rows(in.config.train, in.world.size())) {
    packed_.reserve(static_cast<size_t>(in.model.pool().trainable_count()));
  }

  TrainOutcome run() {
    resume_or_start();
    while (meta_.step < steps_ && !outcome_.stopped) {
      const auto start = Clock::now();
      const int64_t step = meta_.step + 1;
      traffic_before_ = in_.world.traffic().total_bytes();
      is_best_ = false;
      in_.model.pool().zero_grads();
      const LossSums mine = local_gradients(step);
      all_reduce_grads(in_.world, params_, packed_);
      const StepSums sums = agree(mine);
      const double norm = std::sqrt(sum_of_squares(in_.ctx, params_.grads)) / std::max(1.0, sums.scored);
      stop_if_broken(step, sums.nll, norm);
      const double clip = in_.config.train.clip;
      const double factor = clip > 0 && norm > clip ? clip / norm : 1.0;
      const auto lr = static_cast<float>(learning_rate(in_.config.optimizer, step, steps_));
      optimizer_->step(in_.ctx, params_, {step, lr, static_cast<float>(factor / std::max(1.0, sums.scored))});
      in_.model.assemble(in_.ctx);
      finish_step(step, sums, norm, lr, seconds_since(start));
      const bool last = step == steps_;
      if (in_.eval && (last || due(in_.config.evaluate.every, step))) evaluate_now();
      outcome_.stopped = !last && sums.stop > 0;
      if (last || outcome_.stopped || due(in_.config.checkpoint.every, step) ||
          (in_.config.checkpoint.best && is_best_))
        checkpoint();
    }
    outcome_.step = meta_.step;
    outcome_.seconds = meta_.seconds;
    outcome_.tokens = meta_.tokens;
    outcome_.last_loss = meta_.last_loss;
    outcome_.first_eval = meta_.first_eval;
    outcome_.last_eval = meta_.last_eval;
    return outcome_;
  }

 private:
  struct StepSums {
    double nll, scored, stop;
  };
  static bool due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

  void resume_or_start() {
    meta_.ranks = in_.world.size();
    meta_.recipe = in_.recipe;
    meta_.data_hash = in_.data.hash();
    meta_.base_fingerprint = in_.base_fingerprint;
    if (in_.resume_from.empty()) {
      in_.model.assemble(in_.ctx);
      in_.report.rewind(-1);
      if (in_.eval) evaluate_now();
      meta_.first_eval = meta_.last_eval;
      return;
    }
    const CheckpointMeta saved = read_checkpoint_meta(in_.resume_from);
    load_checkpoint(in_.resume_from, params_, *optimizer_);
    in_.model.assemble(in_.ctx);
    meta_.step = saved.step;
    meta_.rows_consumed = saved.rows_consumed;
    meta_.seconds = saved.seconds;
    meta_.tokens = saved.tokens;
    meta_.last_loss = saved.last_loss;
    meta_.first_eval = saved.first_eval;
    meta_.last_eval = saved.last_eval;
    meta_.best_loss = saved.best_loss;
    in_.report.rewind(saved.step);
    in_.report.say(fmt::format("going on from step {} ({})", saved.step, in_.resume_from.filename().string()));
  }

  LossSums local_gradients(int64_t step) {
    const RowShare share = row_share(in_.config.train.batch, in_.world.rank(), in_.world.size());
    const auto rows = step_rows(in_.data, meta_.rows_consumed, share);
    LossSums sums;
    for (int64_t begin = 0; begin < static_cast<int64_t>(rows.size()); begin += micro_rows_) {
      const int64_t count = std::min(micro_rows_, static_cast<int64_t>(rows.size()) - begin);
      const PackedBatch batch = in_.data.batch(std::span(rows).subspan(begin, count), share.begin + begin);
      sums += run_batch(in_.ctx, in_.model, batch,
                        {.backward = true,
                         .dropout = true,
                         .checkpoint_activations = in_.config.train.checkpoint_activations,
                         .seed = static_cast<uint64_t>(in_.config.train.seed),
                         .step = static_cast<uint64_t>(step)});
    }
    if (in_.model.bound_adapter()) in_.model.bound_adapter()->finish_backward(in_.ctx);
    return sums;
  }

  StepSums agree(const LossSums& mine) {
    const double stop = in_.stop_requested && in_.stop_requested() ? 1 : 0;
    const auto total =
        sum_over_ranks(in_.world, std::array<double, 3>{mine.nll, static_cast<double>(mine.scored), stop});
    return {total[0], total[1], total[2]};
  }

  void stop_if_broken(int64_t step, double nll, double norm) {
    if (std::isfinite(nll) && std::isfinite(norm)) return;
    refuse_broken_base(step);
    throw UserError(fmt::format("step {}", step), "the loss or the gradient is not finite: " + name_broken(in_.model),
                    "the step was not taken and the last checkpoint is whole; lower optimizer.lr, or set train.clip");
  }

  void refuse_broken_base(int64_t step) {
    if (const std::string broken = in_.model.broken_base_weight(); !broken.empty())
      throw UserError(fmt::format("step {}", step), "the loss is not finite: " + broken,
                      "the base model is damaged: take another copy of it");
  }

  void finish_step(int64_t step, const StepSums& sums, double norm, float lr, double seconds) {
    meta_.step = step;
    meta_.rows_consumed += in_.config.train.batch;
    meta_.seconds += seconds;
    const int64_t tokens = in_.config.train.batch * in_.data.sequence_length();
    meta_.tokens += tokens;
    meta_.last_loss = sums.nll / std::max(1.0, sums.scored);
    const double rate = static_cast<double>(tokens) / seconds;
    in_.report.metric(Json::object()
                          .set("step", step)
                          .set("split", "train")
                          .set("loss", meta_.last_loss)
                          .set("lr", static_cast<double>(lr))
                          .set("grad_norm", norm)
                          .set("tokens", meta_.tokens)
                          .set("scored_tokens", static_cast<int64_t>(sums.scored))
                          .set("tokens_per_second", rate)
                          .set("step_seconds", seconds)
                          .set("comm_bytes", in_.world.traffic().total_bytes() - traffic_before_)
                          .set("peak_rss_bytes", peak_rss_bytes()));
    if (step % in_.config.log.every == 0 || step == steps_)
      in_.report.progress(fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  grad {:.3f}  {:.0f} tokens/s  {:.0f} s",
                                      step, steps_, meta_.last_loss, lr, norm, rate, meta_.seconds));
  }

  void evaluate_now() {
    const LossSums sums = evaluate(in_.ctx, in_.model, *in_.eval, in_.world, micro_rows_, in_.config.evaluate.rows);
    if (!std::isfinite(sums.nll) || !std::isfinite(sums.choices_nll)) {
      refuse_broken_base(meta_.step);
      throw UserError(fmt::format("step {}", meta_.step), "the held-out loss is not finite: " + name_broken(in_.model),
                      "the last checkpoint is whole; lower optimizer.lr, or set train.clip");
    }
    meta_.last_eval = sums;
    const double loss = sums.mean_loss(objective_of(in_.config.train.objective));
    is_best_ = loss < meta_.best_loss;
    meta_.best_loss = std::min(meta_.best_loss, loss);
    Json line = Json::object()
                    .set("step", meta_.step)
                    .set("split", "eval")
                    .set("loss", loss)
                    .set("perplexity", std::exp(sums.mean_nll()))
                    .set("token_accuracy", sums.token_accuracy())
                    .set("tokens", sums.scored);
    std::string text = fmt::format("step {}  held-out loss {:.4f}  perplexity {:.4g}  tokens right {:.1f} %",
                                   meta_.step, loss, std::exp(sums.mean_nll()), 100 * sums.token_accuracy());
    if (sums.completions > 0) {
      line.set("exact_match", sums.exact_match()).set("completions", sums.completions);
      text += fmt::format("  completions right {:.1f} % of {}", 100 * sums.exact_match(), sums.completions);
    }
    if (sums.choices > 0) {
      line.set("accuracy", sums.accuracy()).set("choices", sums.choices);
      text += fmt::format("  choices right {:.1f} % of {}", 100 * sums.accuracy(), sums.choices);
    }
    in_.report.metric(line);
    in_.report.say(text);
  }

  void checkpoint() {
    if (in_.folder)
      save_checkpoint(*in_.folder / "checkpoints", meta_, params_, *optimizer_, in_.config.checkpoint.keep,
                      in_.config.checkpoint.best && is_best_);
  }

  const TrainerInputs& in_;
  FlatParams& params_;
  std::unique_ptr<Optimizer> optimizer_;
  int64_t steps_, micro_rows_;
  CheckpointMeta meta_;
  TrainOutcome outcome_;
  std::vector<float> packed_;
  int64_t traffic_before_ = 0;  // bytes, at the start of the step
  bool is_best_ = false;
};

}  // namespace

int64_t total_steps(const TrainConfig& config, const PackedDataset& data) {
  if (config.steps) return *config.steps;
  const double batches = static_cast<double>(data.rows()) / static_cast<double>(config.batch);
  return static_cast<int64_t>(std::min(std::ceil(config.epochs.value_or(1.0) * batches), 0x1p62));
}

int64_t micro_batch_rows(const TrainConfig& config, int ranks) {
  const int64_t largest_share = (config.batch + ranks - 1) / ranks;
  const int64_t wanted =
      config.micro_batch > 0 ? config.micro_batch : std::max<int64_t>(1, 512 / config.sequence_length);
  return std::min(wanted, largest_share);
}

LossSums evaluate(const Context& ctx, Model& model, const PackedDataset& data, Communicator& world, int64_t micro_batch,
                  int64_t rows) {
  const int64_t total = rows > 0 ? std::min(rows, data.rows()) : data.rows();
  const RowShare share = row_share(total, world.rank(), world.size());
  LossSums sums;
  for (int64_t begin = share.begin; begin < share.end; begin += micro_batch) {
    std::vector<int64_t> numbers;
    for (int64_t row = begin; row < std::min(begin + micro_batch, share.end); ++row) numbers.push_back(row);
    sums += run_batch(ctx, model, data.batch(numbers, begin), {});
  }
  return sum_over_ranks(world, sums);
}

TrainOutcome run_training(const TrainerInputs& inputs) { return Loop(inputs).run(); }

}  // namespace tessera
