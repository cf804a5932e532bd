#pragma once
// Numbers that sums give, as files and readers are told them.

#include <optional>
#include <string>

#include "score/metrics/metric.h"
#include "score/objective.h"

namespace tessera {

struct Figure {
  std::string key, words;  // for programs, and for readers
  double value;
  std::string text;  // the value for readers: "25.0 %", "4.1875"
};

/// The objective's loss, when anything was scored for it.
std::optional<Figure> loss_figure(const LossSums&, const Objective&);
/// A metric's figure, when it exists.
std::optional<Figure> figure_of(const LossSums&, const Metric&, const FigureSpec&);

/// The loss and the metrics' figures that exist, are finite, and are told at least so far.
std::vector<Figure> figures_told(const LossSums&, const Objective&, Told);

}  // namespace tessera
