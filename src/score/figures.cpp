#include "score/figures.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/functions/functions.h"

namespace tessera {

std::optional<Figure> loss_figure(const LossSums& sums, const Objective& objective) {
  // Asked this way round, since a count that is not known is NaN.
  if (!(sums[objective.loss_count] > 0)) return std::nullopt;
  const double loss = objective.mean(sums);
  return Figure{"loss", "loss", loss, fmt::format("{:.4f}", loss)};
}

std::optional<Figure> figure_of(const LossSums& sums, const Metric& metric, const FigureSpec& spec) {
  const double count = sums[metric.count.sum];
  if (!(count > 0)) return std::nullopt;
  const double mean = sums[spec.sum] / count, value = spec.form == Form::exp_mean ? functions::exp(mean) : mean;
  return Figure{std::string(spec.key), std::string(spec.words), value,
                spec.form == Form::share ? fmt::format("{:.1f} %", 100 * value) : fmt::format("{:.4g}", value)};
}

std::vector<Figure> figures_told(const LossSums& sums, const Objective& objective, Told told) {
  std::vector<Figure> figures;
  const auto add = [&](std::optional<Figure> figure) {
    // JSON has no numbers for the others.
    if (figure && std::isfinite(figure->value)) figures.push_back(std::move(*figure));
  };
  add(loss_figure(sums, objective));
  for (const Metric& metric : metrics())
    for (const FigureSpec& spec : metric.figures)
      if (spec.told >= told) add(figure_of(sums, metric, spec));
  return figures;
}

}  // namespace tessera
