#include "train/divergence.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>

#include "train/run_folder.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// The training loss that the run began with; infinite when nothing tells.
double first_loss(const fs::path& run) {
  try {
    for (const Json& line : MetricsFile(run / "metrics.jsonl").lines())
      if (const Json* split = line.find("split"), *loss = line.find("loss");
          split && loss && split->dump() == "\"train\"" && loss->is_number())
        return loss->as_number();
  } catch (const UserError&) {  // a damaged file: it is not what this message is about
  }
  return std::numeric_limits<double>::infinity();
}

struct Healthy {
  fs::path file;
  int64_t step;
  double loss;
};

/// The newest checkpoint whose last step was no worse than the run's first; else the one that the run itself began from.
std::optional<Healthy> healthy_checkpoint(const TrainerInputs& in) {
  const double first = first_loss(in.run_path);
  std::vector<fs::path> files;
  for (const int64_t step : checkpoint_steps(in.run_path / "checkpoints"))
    files.push_back(checkpoint_file(in.run_path / "checkpoints", step));
  if (!in.resume_from.empty()) files.push_back(in.resume_from);
  for (const fs::path& file : files) {
    try {
      const CheckpointMeta meta = read_checkpoint_meta(file);
      if (std::isfinite(meta.last_loss) && (meta.last_loss <= first || file == in.resume_from))
        return Healthy{file, meta.step, meta.last_loss};
    } catch (const UserError&) {  // a damaged one: the one before may do
    }
  }
  return std::nullopt;
}

}  // namespace

std::string way_out_of_divergence(const TrainerInputs& in) {
  std::string overrides = fmt::format("optimizer.lr={:.3g}", in.config.optimizer.lr / 10);
  const bool is_backprop = in.config.train.estimator != "spsa";
  if (is_backprop && in.config.train.clip == 0) overrides += " train.clip=1";
  const auto saved = is_backprop ? healthy_checkpoint(in) : std::nullopt;
  if (!saved)
    return fmt::format("no checkpoint from before is left: start anew with a lower rate, run.resume=never {}",
                       overrides);
  return fmt::format("go on from step {}, whose loss was {:.4g}, with a lower rate in a new folder: {} {}", saved->step,
                     saved->loss, shell_word("run.resume=" + saved->file.string()), overrides);
}

std::string shell_word(const std::string& text) {
  const auto is_plain = [](unsigned char c) {
    return std::isalnum(c) || c >= 0x80 ||
           std::string_view("_./=-+,:@%").find(static_cast<char>(c)) != std::string_view::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace tessera
