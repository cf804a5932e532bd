#include "compress/matrix.h"

#include <algorithm>

#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {

RowReader::RowReader(const ConstView& weight) : weight_(weight), row_(static_cast<size_t>(weight.cols())) {
  TS_CHECK(weight.shape.rank == 2 && is_floating(weight.dtype), "a weight of {} {}", name_of(weight.dtype),
           weight.shape.text());
}

std::span<const double> RowReader::row(int64_t i) {
  const ConstView row = weight_.slice_rows(i, i + 1);
  for (size_t j = 0; j < row_.size(); ++j) row_[j] = element(row, static_cast<int64_t>(j));
  return row_;
}

Matrix::Matrix(const ConstView& weight) : Matrix(weight.rows(), weight.cols()) {
  const OnHost host(weight);
  RowReader reader(host.view());
  for (int64_t i = 0; i < rows_; ++i) std::ranges::copy(reader.row(i), row(i).begin());
}

Matrix transposed(const Matrix& m) {
  Matrix t(m.cols(), m.rows());
  for (int64_t i = 0; i < m.rows(); ++i)
    for (int64_t j = 0; j < m.cols(); ++j) t.row(j)[i] = m.row(i)[j];
  return t;
}

Matrix gram(const Matrix& m) {
  // Column after column of m is a row of its transpose: each adds a multiple of itself to every row of the product, so
  // that the inner loop has no sum in it and runs in vectors, while every element is still summed in order. Blocks of
  // columns stay in the cache while all rows of the product pass.
  constexpr int64_t kBlock = 64;
  const Matrix columns = transposed(m);
  Matrix product(m.rows(), m.rows());
  for (int64_t begin = 0; begin < m.cols(); begin += kBlock)
    for (int64_t i = 0; i < m.rows(); ++i)
      for (int64_t k = begin; k < std::min(begin + kBlock, m.cols()); ++k)
        add_scaled(m.row(i)[k], columns.row(k).subspan(static_cast<size_t>(i)),
                   product.row(i).subspan(static_cast<size_t>(i)));
  for (int64_t i = 0; i < m.rows(); ++i)
    for (int64_t j = 0; j < i; ++j) product.row(i)[j] = product.row(j)[i];
  return product;
}

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void add_scaled(double factor, std::span<const double> x, std::span<double> y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] += factor * x[i];
}

}  // namespace tessera
