#include "compress/eigen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace tessera {
namespace {

/// Diagonal and the elements beside it: offdiagonal[i] is (i, i+1); the last is 0.
struct Tridiagonal {
  std::vector<double> diagonal, offdiagonal;
};

/// A reflection I - v vᵀ over the coordinates from `first` on; |v|² = 2, or v is empty: none.
struct Reflection {
  int64_t first = 0;
  std::vector<double> v;
};

/// The reflection that turns x into (alpha, 0, 0, ..). Elements below 1e-100 of the matrix, whose squares would lose
/// their digits, count as zeros.
Reflection reflection_of(std::span<const double> x, int64_t first, double& alpha) {
  double rest = 0;
  for (size_t i = 1; i < x.size(); ++i) rest = std::max(rest, std::abs(x[i]));
  alpha = x[0];
  if (rest < 1e-100) return {first, {}};
  const double norm = std::sqrt(dot(x, x));
  alpha = x[0] > 0 ? -norm : norm;  // away from x[0], so that nothing cancels
  Reflection reflection{first, {x.begin(), x.end()}};
  reflection.v[0] -= alpha;
  const double scale = std::sqrt(2 / dot(reflection.v, reflection.v));
  for (double& value : reflection.v) value *= scale;
  return reflection;
}

/// m <- H m H over the rows and columns from r.first on.
void reflect_both_sides(Matrix& m, const Reflection& r) {
  const auto first = static_cast<size_t>(r.first);
  const auto row = [&](size_t i) { return m.row(static_cast<int64_t>(first + i)).subspan(first); };
  std::vector<double> w(r.v.size());  // m v, by rows: m is symmetric
  for (size_t i = 0; i < w.size(); ++i) add_scaled(r.v[i], row(i), w);
  add_scaled(-dot(r.v, w) / 2, r.v, w);
  for (size_t i = 0; i < w.size(); ++i) {
    add_scaled(-r.v[i], w, row(i));
    add_scaled(-w[i], r.v, row(i));
  }
}

/// Takes the matrix apart, m = Qᵀ T Q. @param q  Q
Tridiagonal tridiagonalise(Matrix& m, Matrix& q) {
  const int64_t n = m.rows();
  Tridiagonal t{std::vector<double>(static_cast<size_t>(n)), std::vector<double>(static_cast<size_t>(n))};
  std::vector<Reflection> reflections;
  for (int64_t k = 0; k + 1 < n; ++k) {
    reflections.push_back(reflection_of(m.row(k).subspan(static_cast<size_t>(k) + 1), k + 1, t.offdiagonal[k]));
    if (!reflections.back().v.empty()) reflect_both_sides(m, reflections.back());
  }
  for (int64_t k = 0; k < n; ++k) t.diagonal[k] = m.row(k)[k];
  // T = H_last .. H_0 m H_0 .. H_last. The product of the reflections is formed from the last one on, which touches the
  // fewest elements; its transpose is Q.
  Matrix product(n, n);
  for (int64_t i = 0; i < n; ++i) product.row(i)[i] = 1;
  for (auto r = reflections.rbegin(); r != reflections.rend(); ++r) {
    const auto first = static_cast<size_t>(r->first);
    const auto row = [&](size_t i) { return product.row(static_cast<int64_t>(first + i)).subspan(first); };
    std::vector<double> sums(r->v.size());
    for (size_t i = 0; i < r->v.size(); ++i) add_scaled(r->v[i], row(i), sums);
    for (size_t i = 0; i < r->v.size(); ++i) add_scaled(-r->v[i], sums, row(i));
  }
  q = transposed(product);
  return t;
}

/// a <- c·a - s·b, b <- s·a + c·b
void rotate(std::span<double> a, std::span<double> b, double c, double s) {
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = b[i];
    a[i] = c * x - s * y;
    b[i] = s * x + c * y;
  }
}

/// One QL step with Wilkinson's shift on rows begin .. end of T, whose offdiagonal elements are not zero.
void ql_step(Tridiagonal& t, Matrix& q, int64_t begin, int64_t end) {
  auto& [d, e] = t;
  const double half = (d[begin + 1] - d[begin]) / (2 * e[begin]);
  const double root = std::hypot(half, 1.0);
  double g = d[end] - d[begin] + e[begin] / (half + (half < 0 ? -root : root));
  double s = 1, c = 1, p = 0;
  for (int64_t i = end - 1; i >= begin; --i) {
    const double f = s * e[i], b = c * e[i], r = std::hypot(f, g);
    e[i + 1] = r;
    if (r == 0) {  // T falls apart here: the next step starts anew
      d[i + 1] -= p;
      e[end] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    g = d[i + 1] - p;
    const double u = (d[i] - g) * s + 2 * c * b;
    p = s * u;
    d[i + 1] = g + p;
    g = c * u - b;
    rotate(q.row(i), q.row(i + 1), c, s);
  }
  d[begin] -= p;
  e[begin] = g;
  e[end] = 0;
}

/// Rotates rows of q until T is diagonal.
void diagonalise(Tridiagonal& t, Matrix& q) {
  constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
  constexpr int kMostSteps = 100;  // two or three are usual
  const int64_t n = q.rows();
  for (int64_t begin = 0; begin < n; ++begin)
    for (int steps = 0;; ++steps) {
      int64_t end = begin;
      while (end + 1 < n && std::abs(t.offdiagonal[end]) >
                                kEpsilon * (std::abs(t.diagonal[end]) + std::abs(t.diagonal[end + 1])) + 1e-200)
        ++end;
      if (end == begin) break;
      TS_CHECK(steps < kMostSteps, "QL steps do not converge: {} beside {}", t.offdiagonal[begin], t.diagonal[begin]);
      ql_step(t, q, begin, end);
    }
}

}  // namespace

SymmetricEigen symmetric_eigen(Matrix m) {
  TS_CHECK(m.rows() == m.cols(), "a matrix of {} x {}", m.rows(), m.cols());
  const int64_t n = m.rows();
  double scale = 0;
  for (const double value : m.values()) {
    TS_CHECK(std::isfinite(value), "an element is {}", value);
    scale = std::max(scale, std::abs(value));
  }
  if (scale == 0) scale = 1;
  for (int64_t i = 0; i < n; ++i)
    for (double& value : m.row(i)) value /= scale;
  Matrix q;
  Tridiagonal t = tridiagonalise(m, q);
  diagonalise(t, q);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return t.diagonal[a] > t.diagonal[b]; });
  SymmetricEigen eigen{std::vector<double>(static_cast<size_t>(n)), Matrix(n, n)};
  for (int64_t i = 0; i < n; ++i) {
    eigen.values[i] = scale * t.diagonal[order[i]];
    std::ranges::copy(q.row(order[i]), eigen.vectors.row(i).begin());
  }
  return eigen;
}

}  // namespace tessera
