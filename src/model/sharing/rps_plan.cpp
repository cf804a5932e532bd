#include "model/sharing/rps_plan.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/functions/functions.h"

namespace tessera {
namespace {

/// Where the readers of cells change: at the starts of chunks and of tensors, seen from the cells.
std::vector<int64_t> borders_of(const RpsPlan& plan) {
  std::vector<int64_t> borders = {0, plan.cells()};
  for (int64_t c = 0; c < plan.chunks(); ++c) borders.push_back(plan.hash.rotation(c));
  borders.push_back(plan.hash.cell(plan.weights - 1) + 1);  // where the last chunk ends
  for (const FoldedTensor& tensor : plan.tensors) borders.push_back(plan.hash.cell(tensor.begin));
  std::sort(borders.begin(), borders.end());
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
  return borders;
}

/// Of one cell, over its readers in ascending order.
CellRun readers_of(const RpsPlan& plan, int64_t cell) {
  CellRun run{cell + 1, 0, 0, 0};
  for (int64_t c = 0; c < plan.chunks(); ++c) {
    const int64_t i = plan.hash.reader(c, cell);
    if (i >= plan.weights) continue;
    const double lambda = plan.tensor_of(i).lambda;
    ++run.readers;
    run.d += lambda * lambda;
    run.magnitude += std::abs(lambda);
  }
  return run;
}

}  // namespace

const FoldedTensor& RpsPlan::tensor_of(int64_t i) const {
  const auto after =
      std::upper_bound(tensors.begin(), tensors.end(), i, [](int64_t i, const FoldedTensor& t) { return i < t.begin; });
  return *std::prev(after);
}

uint64_t RpsPlan::fingerprint() const {
  uint64_t h = fnv1a(nullptr, 0);
  const auto add = [&](auto number) { h = fnv1a(&number, sizeof(number), h); };
  for (int64_t c = 0; c < chunks(); ++c) add(hash.rotation(c));
  for (const FoldedTensor& t : tensors) {
    h = fnv1a(t.name.data(), t.name.size(), h);
    for (const int64_t number : {t.begin, t.layout.rows, t.layout.cols, t.layout.tile_rows, t.layout.tile_cols})
      add(number);
    add(t.lambda);
  }
  for (const uint64_t number : {static_cast<uint64_t>(weights), static_cast<uint64_t>(cells()), hash.sign_key})
    add(number);
  return h;
}

RpsPlan plan_rps(std::vector<FoldedTensor> tensors, int64_t cells, uint64_t seed) {
  TS_CHECK(cells > 0 && !tensors.empty(), "a plan of {} tensors on {} cells", tensors.size(), cells);
  RpsPlan plan;
  plan.hash = FoldHash(seed, cells);
  for (FoldedTensor& tensor : tensors) {
    tensor.begin = plan.weights;
    plan.weights += tensor.layout.count();
  }
  plan.tensors = std::move(tensors);
  const std::vector<int64_t> borders = borders_of(plan);
  for (size_t b = 1; b < borders.size(); ++b) {
    CellRun run = readers_of(plan, borders[b - 1]);
    run.end = borders[b];
    const bool same = !plan.runs.empty() && plan.runs.back().readers == run.readers && plan.runs.back().d == run.d &&
                      plan.runs.back().magnitude == run.magnitude;
    if (same)
      plan.runs.back().end = run.end;
    else
      plan.runs.push_back(run);
  }
  return plan;
}

double fold_lambda(double sigma, double sigma_0, FoldScale scale) {
  const double ratio = sigma / sigma_0;
  return scale == FoldScale::exact ? ratio : std::ldexp(1.0, static_cast<int>(std::round(functions::log2(ratio))));
}

}  // namespace tessera
