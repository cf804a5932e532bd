#include "compress/starts.h"

#include <algorithm>
#include <cmath>

#include "compress/eigen.h"
#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {
namespace {

void check_shapes(const ConstView& child, const ConstView& parent, std::span<const double> sigma) {
  TS_CHECK(child.shape == parent.shape, "{} beside {}", child.shape.text(), parent.shape.text());
  TS_CHECK(static_cast<int64_t>(sigma.size()) == child.cols(), "{} moments of {} channels", sigma.size(), child.cols());
}

/// (child - gain · parent) · diag(root)
Matrix weighted_difference(const ConstView& child, const ConstView& parent, const ConstView& gain,
                           std::span<const double> root, const std::string& what) {
  const OnHost host_child(child), host_parent(parent);
  RowReader own(host_child.view()), shared(host_parent.view());
  Matrix difference(child.rows(), child.cols());
  for (int64_t i = 0; i < child.rows(); ++i) {
    const auto row = difference.row(i);
    const auto own_row = own.row(i), shared_row = shared.row(i);
    const double factor = gain.empty() ? 1 : element(gain, i);
    for (size_t j = 0; j < row.size(); ++j) {
      row[j] = (own_row[j] - factor * shared_row[j]) * root[j];
      if (!std::isfinite(row[j]))
        throw UserError("",
                        fmt::format("fold: {}: row {} of its weights, or their inputs on the calibration rows, are "
                                    "not finite",
                                    what, i),
                        "a model with such numbers cannot be folded: look at its files");
    }
  }
  return difference;
}

double square_of(const Matrix& m) { return dot(m.values(), m.values()); }

/// row <- factor · values / divisors
void store(const TensorView& to, int64_t row, std::span<const double> values, double factor,
           std::span<const double> divisors) {
  const TensorView out = to.slice_rows(row, row + 1);
  for (size_t j = 0; j < values.size(); ++j)
    set_element(out, static_cast<int64_t>(j), factor * values[j] / (divisors.empty() ? 1 : divisors[j]));
}

}  // namespace

Tensor scale_start(const ConstView& child, const ConstView& parent, std::span<const double> sigma) {
  check_shapes(child, parent, sigma);
  const OnHost host_child(child), host_parent(parent);
  RowReader own(host_child.view()), shared(host_parent.view());
  Tensor gain({child.rows()}, DType::f32);
  std::vector<double> weighted(sigma.size());
  for (int64_t i = 0; i < child.rows(); ++i) {
    const auto shared_row = shared.row(i);
    for (size_t j = 0; j < weighted.size(); ++j) weighted[j] = sigma[j] * shared_row[j];
    const double denominator = dot(weighted, shared_row);
    set_element(gain, i, denominator == 0 ? 1 : dot(weighted, own.row(i)) / denominator);
  }
  return gain;
}

LowRankStart low_rank_start(const ConstView& child, const ConstView& parent, const ConstView& gain,
                            std::span<const double> sigma, int64_t rank, const std::string& what) {
  check_shapes(child, parent, sigma);
  TS_CHECK(rank >= 1, "rank {}", rank);
  std::vector<double> root(sigma.size());
  for (size_t j = 0; j < root.size(); ++j) root[j] = std::sqrt(sigma[j]);
  const Matrix difference = weighted_difference(child, parent, gain, root, what);
  const bool is_wide = child.rows() <= child.cols();  // the shorter side is that of the outputs
  // By rows of the shorter side; the longer side's vectors are sums of these rows.
  const Matrix by_rows = is_wide ? difference : transposed(difference);
  const Matrix vectors = symmetric_eigen(gram(by_rows)).vectors;

  LowRankStart start{.a = Tensor({rank, child.cols()}, DType::f32),
                     .bt = Tensor({rank, child.rows()}, DType::f32),
                     .error = 0,
                     .before = square_of(difference)};
  double kept = 0;
  std::vector<double> projected(static_cast<size_t>(by_rows.cols()));
  for (int64_t k = 0; k < std::min(rank, by_rows.rows()); ++k) {
    const auto vector = vectors.row(k);
    std::fill(projected.begin(), projected.end(), 0.0);
    for (int64_t i = 0; i < by_rows.rows(); ++i) add_scaled(vector[i], by_rows.row(i), projected);
    const double square = dot(projected, projected), value = std::sqrt(square);  // s_k
    if (value == 0) continue;
    kept += square;
    const auto in = is_wide ? std::span<const double>(projected) : vector;
    const auto out = is_wide ? vector : std::span<const double>(projected);
    const double of_vector = std::sqrt(value), of_projected = 1 / std::sqrt(value);
    store(start.a, k, in, is_wide ? of_projected : of_vector, root);
    store(start.bt, k, out, is_wide ? of_vector : of_projected, {});
  }
  start.error = std::max(0.0, start.before - kept);
  return start;
}

}  // namespace tessera
