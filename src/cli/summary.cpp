#include "cli/summary.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "cli/device_name.h"
#include "cli/estimator_run.h"
#include "cli/model_settings.h"
#include "core/error.h"
#include "io/hub_cache.h"
#include "score/figures.h"
#include "train/checkpoint.h"
#include "train/divergence.h"
#include "train/estimator.h"
#include "train/steps.h"

namespace tessera {
namespace {

/// Those that a run's outcome is told by, the loss last.
std::vector<Figure> outcome_figures(const LossSums& sums, const Objective& objective) {
  std::vector<Figure> figures = figures_told(sums, objective, Told::outcome);
  std::stable_partition(figures.begin(), figures.end(), [](const Figure& f) { return f.key != "loss"; });
  return figures;
}

std::optional<Figure> find_figure(const LossSums& sums, const Objective& objective, const std::string& key) {
  for (const Figure& figure : outcome_figures(sums, objective))
    if (figure.key == key) return figure;
  return std::nullopt;
}

/// How the trained values come out as they are.
std::string unrounded_hint(const JobInputs& in, const Written& result, int64_t step) {
  const std::filesystem::path run = result.folder.parent_path();
  if (in.config.adapter.method != "none" || std::filesystem::exists(run / "sharing"))
    return fmt::format("job=export model.dtype=f32 {} writes it in f32", shell_word("run.dir=" + run.string()));
  return estimator_run(in.config).how_to_write_f32(run, step);
}

/// A folder and its figures; where they are not those of the trained values, these too.
void say_written(Reporter& report, const JobInputs& in, const Written& result, const CheckpointMeta& meta) {
  if (!result.sums) return;
  const Objective& objective = objective_of(in.config.trainer.train.objective);
  std::string text, others;
  for (const Figure& figure : outcome_figures(*result.sums, objective)) {
    text += fmt::format("{}held-out {} {}", text.empty() ? "" : ", ", figure.words, figure.text);
    const auto before = find_figure(meta.last_eval, objective, figure.key);
    if (before && before->text != figure.text)
      others += fmt::format("{}{} {}", others.empty() ? "" : ", ", figure.words, before->text);
  }
  report.say(fmt::format("{}: {}", result.folder.string(), text));
  if (others.empty()) return;
  const std::string why =
      result.rounded_to ? fmt::format("before they were rounded to {}", name_of(*result.rounded_to)) : "apart from it";
  report.say(fmt::format("the trained values, {}: {}{}", why, others,
                         result.rounded_to ? "; " + unrounded_hint(in, result, meta.step) : ""));
}

/// Parameters of a plain LoRA of the rank that the adapter's layers work with.
int64_t lora_parameters(const AdapterWeights& adapter) {
  int64_t count = 0;
  for (const auto& deltas : adapter.by_weight)
    for (const LowRank& delta : deltas)  // what is frozen belongs to the base
      if (delta.a->is_trainable()) count += delta.a->shape().count() + delta.bt->shape().count();
  return count;
}

/// Of a model of the user's, put into a recipe that draws its weights.
std::string unread_weights_notice(const ModelOptions& model) {
  namespace fs = std::filesystem;
  const bool has_weights =
      fs::exists(model.path / "model.safetensors") || fs::exists(model.path / "model.safetensors.index.json");
  if (model.init != "random" || !has_weights) return "";
  return fmt::format(
      "note: model.init is \"random\": the weights in {} are not read, training begins with drawn ones; "
      "model.init=pretrained reads them",
      model.path.string());
}

}  // namespace

void say_plan(Reporter& report, const JobInputs& in, Model& model, const MemoryPlan& memory, const Datasets& sets,
              int64_t steps) {
  const JobConfig& config = in.config;
  report.say(fmt::format("{}: {} layers of width {}, {} parameters; trained: {} ({})",
                         title_of_model(in.config.model.path), model.config().num_hidden_layers,
                         model.config().hidden_size, dense_parameters(model), model.pool().trainable_count(),
                         config.adapter.method != "none"   ? config.adapter.method
                         : config.sharing.method != "none" ? config.sharing.method
                                                           : "all"));
  for (const std::string& note : model.notes()) report.say(note);
  if (const std::string notice = unread_weights_notice(config.model); !notice.empty()) report.say(notice);
  report.say(fmt::format(
      "data: {} rows of {} tokens, {:.1f} % filled; {} steps of {} rows on {} ranks x {} threads; device {}",
      sets.train->rows(), sets.train->sequence_length(), 100 * sets.train->fill(), steps, in.config.trainer.train.batch,
      in.world.size(), in.threads, device_name(in)));
  const int64_t rows = sets.train->rows(), taken = rows_per_step(config.trainer, in.share.count);
  if (config.trainer.train.epochs && rows < taken)
    report.say(
        fmt::format("note: a pass over the data has {} row{} and a step takes {}: a step reads rows more than once",
                    rows, rows == 1 ? "" : "s", taken));
  report.say(fmt::format("memory a rank: {}; mapped once a machine: {}", memory.text(), megabytes(memory.mapped)));
  const Estimator& estimator = estimator_of(config.trainer);
  const Estimator::Words words = estimator.words();
  report.say(fmt::format("{}: {}{}", words.sent_in_step, megabytes(estimator.wire_bytes(model)), words.spared));
  if (const std::string notice = length_notice(model, "rows", in.config.trainer.train.sequence_length); !notice.empty())
    report.say(notice);
}

void say_outcome(Reporter& report, const JobInputs& in, Model& model, const TrainOutcome& outcome,
                 const std::vector<Written>& written) {
  const LossSums &first = outcome.meta.first_eval, &last = figures_of_outcome(written, outcome.meta.last_eval);
  const Objective& objective = objective_of(in.config.trainer.train.objective);
  for (const Figure& figure : outcome_figures(last, objective)) {
    const auto before = find_figure(first, objective, figure.key);
    report.say(
        fmt::format("held-out {}: {}{} after", figure.words, before ? before->text + " before, " : "", figure.text));
  }
  const auto before = find_figure(first, objective, "loss"), after = find_figure(last, objective, "loss");
  if (before && after && after->value > 1.02 * before->value)
    report.say(std::string("warning: the held-out loss rose: lower optimizer.lr") +
               estimator_of(in.config.trainer).words().lower_rate);
  for (const Written& result : written) say_written(report, in, result, outcome.meta);
  if (!model.adapter()) return;
  const int64_t trained = model.pool().trainable_count(), base = dense_parameters(model);
  const int64_t lora = lora_parameters(model.bound_adapter()->weights());
  const auto percent = [&](int64_t whole) { return 100.0 * static_cast<double>(trained) / static_cast<double>(whole); };
  report.say(fmt::format("trained {} parameters: {:.1f} % of a LoRA of the same rank ({}), {:.2f} % of the model ({})",
                         trained, percent(lora), lora, percent(base), base));
}

Json done_line(const JobInputs& in, const TrainOutcome& outcome, Model& model, const std::vector<Written>& written) {
  const Objective& objective = objective_of(in.config.trainer.train.objective);
  const CheckpointMeta& meta = outcome.meta;
  Json line = Json::object().set("event", "done").set("step", meta.step);
  if (std::isfinite(meta.last_loss)) line.set("loss", meta.last_loss);
  line.set("tokens", meta.tokens)
      .set("seconds", meta.seconds)
      .set("trained_parameters", model.pool().trainable_count());
  const auto add = [&](Json& to, const LossSums& sums, const std::string& suffix) {
    for (const Figure& figure : figures_told(sums, objective, Told::results))
      to.set("eval_" + figure.key + suffix, figure.value);
  };
  add(line, meta.first_eval, "_before");
  const LossSums& last = figures_of_outcome(written, meta.last_eval);
  add(line, last, "");
  if (&last != &meta.last_eval) add(line, meta.last_eval, "_trained");
  Json folders = Json::object();
  for (const Written& result : written) {
    if (!result.sums) continue;
    Json figures = Json::object();
    add(figures, *result.sums, "");
    folders.set(result.name, figures);
  }
  if (!folders.members().empty()) line.set("written", folders);
  return line;
}

}  // namespace tessera
