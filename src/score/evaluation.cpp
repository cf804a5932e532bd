// Figures and back: metrics.jsonl is told figures, and a run whose sums are kept nowhere else gets them from there, as
// well as figures tell them.

#include "score/evaluation.h"

#include <fmt/core.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/functions/functions.h"
#include "score/figures.h"

namespace tessera {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

void set_loss(Json& line, const LossSums& sums, const Objective& objective) {
  if (const auto loss = loss_figure(sums, objective)) line.set(loss->key, loss->value);
}

/// The metrics' figures that exist and go so far, each metric's count behind them.
void set_figures(Json& line, const LossSums& sums, Told told) {
  for (const Metric& metric : metrics()) {
    for (const FigureSpec& spec : metric.figures)
      if (const auto figure = figure_of(sums, metric, spec); figure && spec.told >= told)
        line.set(figure->key, figure->value);
    const double count = sums[metric.count.sum];
    if (count > 0 && metric.count.told >= told) line.set(std::string(metric.count.key), static_cast<int64_t>(count));
  }
}

/// What the sum was when its figure is this one.
double sum_behind(const FigureSpec& spec, double figure, double count, SumKind kind) {
  // The inverse of the figure; a count, which was rounded in a share, is a whole number again.
  const double sum = (spec.form == Form::exp_mean ? functions::log(figure) : figure) * count;
  return kind == SumKind::count ? static_cast<double>(std::llround(sum)) : sum;
}

void recall(const Json& line, const Metric& metric, LossSums& sums) {
  const Json* count = line.find(metric.count.key);
  if (!count) return;  // nothing of the kind was scored
  // What the line does not tell stays unknown, and is not taken for 0.
  for (const SumSpec& sum : metric.sums) sums[sum.name] = kUnknown;
  sums[metric.count.sum] = count->as_number();
  for (const FigureSpec& figure : metric.figures)
    for (const SumSpec& sum : metric.sums)
      if (const Json* value = line.find(figure.key); value && sum.name == figure.sum)
        sums[sum.name] = sum_behind(figure, value->as_number(), count->as_number(), sum.kind);
}

}  // namespace

std::string evaluation_set(const PackedDataset& data, int64_t rows) {
  if (rows == 0 || rows >= data.rows()) return data.hash();
  return fmt::format("{} rows {}", data.hash(), rows);
}

Json evaluation_line(int64_t step, const LossSums& sums, const Objective& objective) {
  Json line = Json::object().set("step", step).set("split", "eval");
  set_loss(line, sums, objective);
  set_figures(line, sums, Told::evaluations);
  return line;
}

std::string evaluation_text(int64_t step, const LossSums& sums, const Objective& objective) {
  const auto loss = loss_figure(sums, objective);
  std::string text =
      fmt::format("step {}  held-out {}", step, loss ? "loss " + loss->text : " rows have nothing to score");
  for (const Metric& metric : metrics()) {
    for (const FigureSpec& spec : metric.figures)
      if (const auto figure = figure_of(sums, metric, spec))
        text += fmt::format("  {} {}", figure->words, figure->text);
    const double count = sums[metric.count.sum];
    if (count > 0 && metric.count.told >= Told::results) text += fmt::format(" of {}", static_cast<int64_t>(count));
  }
  return text;
}

LossSums sums_told(const Json& line, const Objective& objective) {
  LossSums sums;
  for (const Metric& metric : metrics()) recall(line, metric, sums);
  const double count = sums[objective.loss_count];
  const Json* loss = line.find("loss");  // nearer to the sum than e to the loss
  if (count > 0) sums[objective.loss_sum] = loss ? loss->as_number() * count : kUnknown;
  return sums;
}

Json result_line(const LossSums& sums, const Objective& objective) {
  Json line = Json::object();
  set_loss(line, sums, objective);
  line.set("scored_tokens", static_cast<int64_t>(sums["scored"]));
  set_figures(line, sums, Told::results);
  return line;
}

}  // namespace tessera
