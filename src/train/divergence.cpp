#include "train/divergence.h"

#include <cmath>
#include <map>

#include "core/device/memory.h"
#include "core/error.h"
#include "train/checkpoint.h"
#include "train/run_folder.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// Training losses by step. That of step s + 1 is of the weights that a checkpoint of step s holds; the one in the
/// checkpoint itself is of those before its last step.
std::map<int64_t, double> told_losses(const fs::path& run) {
  std::map<int64_t, double> losses;
  try {
    for (const Json& line : MetricsFile(run / "metrics.jsonl").lines())
      if (const Json* split = line.find("split"), *step = line.find("step"), *loss = line.find("loss");
          split && step && loss && loss->is_number() && split->dump() == "\"train\"")
        losses[step->as_integer()] = loss->as_number();
  } catch (const UserError&) {  // a damaged file: it is not what this message is about
  }
  return losses;
}

struct Healthy {
  fs::path file;
  int64_t step;
  double loss;
};

/// The newest checkpoint, else the one that the run itself began from,
/// whose weights gave about the first loss or a lower one.
std::optional<Healthy> healthy_checkpoint(const TrainerInputs& in) {
  const auto losses = told_losses(in.run_path);
  if (losses.empty()) return std::nullopt;
  // A fifth above the first loss may be the batch's doing.
  const double most = 1.2 * losses.begin()->second;
  std::vector<fs::path> files;
  for (const int64_t step : checkpoint_steps(in.run_path / "checkpoints"))
    files.push_back(checkpoint_file(in.run_path / "checkpoints", step));
  if (!in.resume_from.empty()) files.push_back(in.resume_from);
  for (const fs::path& file : files) {
    try {
      const int64_t step = read_checkpoint_meta(file).step;
      // The loss of the next step was taken with the weights that this file holds.
      const auto next = losses.find(step + 1);
      if (next != losses.end() && next->second <= most) return Healthy{file, step, next->second};
    } catch (const UserError&) {  // a damaged one: the one before may do
    }
  }
  return std::nullopt;
}

}  // namespace

// One broken value breaks every gradient, so values are looked at first.
std::string name_broken(Model& model) {
  const FlatParams& params = model.pool().trainable();
  for (const auto& [kind, numbers] : {std::pair{"value", params.values}, std::pair{"gradient", params.grads}}) {
    const OnHost host(numbers);
    for (const TrainableSlot& slot : params.slots)
      for (int64_t i = 0; i < slot.shape.count() && !numbers.empty(); ++i) {
        const double number = element(host.view(), slot.begin + i);
        if (std::isfinite(number)) continue;
        return fmt::format("{} {} of {}", kind, number, model.readers(slot.name, i));
      }
  }
  return "the loss of a batch, while all weights and gradients are finite";
}

void refuse_broken_base(Model& model, int64_t step) {
  if (const std::string broken = model.broken_base_weight(); !broken.empty())
    throw UserError(fmt::format("step {}", step), "the loss is not finite: " + broken,
                    "the base model is damaged: take another copy of it");
}

namespace {

std::string lower_rate(const TrainerInputs& in, const std::string& more) {
  return fmt::format("optimizer.lr={:.3g}", in.config.optimizer.lr / 10) + more;
}

}  // namespace

std::string lower_rate_from_start(const TrainerInputs& in, const std::string& more) {
  return fmt::format("no checkpoint from before is left: start anew with a lower rate, run.resume=never {}",
                     lower_rate(in, more));
}

std::string lower_rate_from_checkpoint(const TrainerInputs& in, const std::string& more) {
  const auto saved = healthy_checkpoint(in);
  if (!saved) return lower_rate_from_start(in, more);
  return fmt::format("go on from step {}, where the loss was still {:.4g}, with a lower rate in a new folder: {} {}",
                     saved->step, saved->loss, shell_word("run.resume=" + saved->file.string()), lower_rate(in, more));
}

}  // namespace tessera
