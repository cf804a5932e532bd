#include "compress/parents.h"

#include <algorithm>
#include <numeric>

#include "compress/matrix.h"
#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {
namespace {

/// sum over i, j of sigma[j] · (a_ij - b_ij)², b = 0 when it is null.
double weighted_square(const ConstView& a, const ConstView* b, std::span<const double> sigma) {
  TS_CHECK(static_cast<int64_t>(sigma.size()) == a.cols(), "{} moments of {} channels", sigma.size(), a.cols());
  TS_CHECK(!b || a.shape == b->shape, "{} beside {}", a.shape.text(), b->shape.text());
  const OnHost host_a(a), host_b(b ? *b : a);
  RowReader reader_a(host_a.view()), reader_b(host_b.view());
  std::vector<double> by_channel(sigma.size());  // sums over rows: the inner loop has no sum in it and runs in vectors
  for (int64_t i = 0; i < a.rows(); ++i) {
    const auto row_a = reader_a.row(i);
    const auto row_b = b ? reader_b.row(i) : std::span<const double>();
    for (size_t j = 0; j < row_a.size(); ++j) {
      const double difference = b ? row_a[j] - row_b[j] : row_a[j];
      by_channel[j] += difference * difference;
    }
  }
  return dot(sigma, by_channel);
}

/// sum over c of factor(c, j) · W_c[i, j], rounded to `dtype`.
template <class Factor> Tensor sum_of(std::span<const ConstView> weights, DType dtype, Factor factor) {
  TS_CHECK(!weights.empty(), "no weights");
  const Shape shape = weights[0].shape;
  Tensor sum(shape, dtype);
  std::vector<double> row(static_cast<size_t>(shape[1]));
  std::vector<std::unique_ptr<OnHost>> hosts;
  std::vector<RowReader> readers;
  for (const ConstView& weight : weights) {
    TS_CHECK(weight.shape == shape, "{} beside {}", weight.shape.text(), shape.text());
    hosts.push_back(std::make_unique<OnHost>(weight));
    readers.emplace_back(hosts.back()->view());
  }
  for (int64_t i = 0; i < shape[0]; ++i) {
    std::fill(row.begin(), row.end(), 0.0);
    for (size_t c = 0; c < readers.size(); ++c) {
      const auto values = readers[c].row(i);
      for (size_t j = 0; j < row.size(); ++j) row[j] += factor(c, j) * values[j];
    }
    const TensorView out = sum.view().slice_rows(i, i + 1);
    for (size_t j = 0; j < row.size(); ++j) set_element(out, static_cast<int64_t>(j), row[j]);
  }
  return sum;
}

std::vector<double> floored(std::vector<double> sums) {
  const double mean = std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(sums.size());
  for (double& sum : sums) sum = mean == 0 ? 1 : std::max(sum, 1e-6 * mean);
  return sums;
}

}  // namespace

const std::vector<double>& InputMoments::of(Part part) const {
  switch (part) {
    case Part::q:
    case Part::k:
    case Part::v:
      return attention;
    case Part::o:
      return o;
    case Part::gate:
    case Part::up:
      return mlp;
    case Part::down:
      return down;
    default:
      fail_check(__FILE__, __LINE__, "of", "a part that is no linear of a block");
  }
}

InputMoments floored(InputMoments moments) {
  for (std::vector<double>* sums : {&moments.attention, &moments.o, &moments.mlp, &moments.down})
    *sums = floored(std::move(*sums));
  return moments;
}

double delta_of(const FoldBlock& child, const FoldBlock& parent) {
  TS_CHECK(child.linears.size() == parent.linears.size(), "{} linears beside {}", child.linears.size(),
           parent.linears.size());
  double delta = 0;
  for (size_t i = 0; i < child.linears.size(); ++i) {
    const FoldBlock::Linear &own = child.linears[i], &other = parent.linears[i];
    TS_CHECK(own.type == other.type, "{} beside {}", own.type, other.type);
    delta += weighted_square(own.weight, &other.weight, child.moments.of(own.part));
  }
  return delta;
}

double magnitude_of(const FoldBlock& block) {
  double magnitude = 0;
  for (const FoldBlock::Linear& linear : block.linears)
    magnitude += weighted_square(linear.weight, nullptr, block.moments.of(linear.part));
  return magnitude;
}

Tensor mean_weight(std::span<const ConstView> weights, DType dtype) {
  const auto count = static_cast<double>(weights.size());
  Tensor sum = sum_of(weights, DType::f64, [](size_t, size_t) { return 1.0; });  // exact where the mean is of equals
  Tensor mean(sum.shape(), dtype);
  for (int64_t i = 0; i < sum.shape().count(); ++i) set_element(mean, i, element(sum.view(), i) / count);
  return mean;
}

Tensor weighted_mean_weight(std::span<const ConstView> weights, std::span<const std::span<const double>> sigmas,
                            DType dtype) {
  TS_CHECK(weights.size() == sigmas.size(), "{} weights, {} moments", weights.size(), sigmas.size());
  std::vector<std::vector<double>> shares;  // sigma_c[j] / sum over c of sigma_c[j]
  for (const auto& sigma : sigmas) shares.emplace_back(sigma.begin(), sigma.end());
  for (size_t j = 0; j < shares[0].size(); ++j) {
    double sum = 0;
    for (const auto& share : shares) sum += share[j];
    for (auto& share : shares) share[j] /= sum;
  }
  return sum_of(weights, dtype, [&](size_t c, size_t j) { return shares[c][j]; });
}

}  // namespace tessera
