#pragma once
// Small dense matrices of f64 on the host, for what is computed once a model: distances of weights, starts of children.

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// Row-major, zeros at first.
class Matrix {
 public:
  Matrix() = default;
  Matrix(int64_t rows, int64_t cols) : rows_(rows), cols_(cols), values_(static_cast<size_t>(rows * cols)) {}
  /// A weight of any floating dtype, on any device.
  explicit Matrix(const ConstView&);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  std::span<double> row(int64_t i) { return {values_.data() + i * cols_, static_cast<size_t>(cols_)}; }
  std::span<const double> row(int64_t i) const { return {values_.data() + i * cols_, static_cast<size_t>(cols_)}; }
  std::span<const double> values() const { return values_; }

 private:
  int64_t rows_ = 0, cols_ = 0;
  std::vector<double> values_;
};

Matrix transposed(const Matrix&);
/// m mᵀ  [rows, rows]. Sums run over the columns in order.
Matrix gram(const Matrix& m);
/// sum a_i b_i, in order.
double dot(std::span<const double> a, std::span<const double> b);
/// y += factor · x
void add_scaled(double factor, std::span<const double> x, std::span<double> y);

/// Rows of a weight as f64, one at a time: a weight is never held twice in full.
class RowReader {
 public:
  /// @param weight  [rows, cols] of any floating dtype, where the host can read it
  explicit RowReader(const ConstView& weight);
  /// Valid until the next call.
  std::span<const double> row(int64_t i);

 private:
  ConstView weight_;
  std::vector<double> row_;
};

}  // namespace tessera
