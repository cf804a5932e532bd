#include "kernels/fold.h"

#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

class FoldOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(FoldOnCpu);

/// A folded matrix with its factors, which grow from piece to piece.
struct Folded {
  std::vector<FoldFactor> factors;
  FoldedMatrix matrix;
  Folded(int64_t cells, int64_t begin, FoldLayout layout, int64_t pieces = 1, double first = 0.75,
         double growth = 1.3) {
    pieces = std::min(pieces, cells);
    double factor = first;
    for (int64_t p = 1; p <= pieces; ++p, factor *= growth) factors.push_back({cells * p / pieces, factor});
    matrix = {.hash = FoldHash(5, cells), .begin = begin, .layout = layout, .factors = factors};
  }
  Folded(const Folded&) = delete;
  Folded& operator=(const Folded&) = delete;
};

Matrix small_integers(int64_t rows, int64_t cols, uint64_t seed) {
  Matrix matrix = Matrix::random(rows, cols, DType::f32, seed, 9);
  for (int64_t i = 0; i < rows * cols; ++i) matrix.set(i / cols, i % cols, std::round(matrix.at(i / cols, i % cols)));
  return matrix;
}

TEST(Fold, ReadsTheCellsOfTheDefinitionWithTheirSigns) {
  const Folded folded(10, 8, {2, 4}, 1, 2.0);
  Matrix pool(1, 10, DType::f64);
  for (int64_t j = 0; j < 10; ++j) pool.set(0, j, static_cast<double>(j + 1));
  const Matrix w(2, 4, DType::f64);
  fold_expand(On("reference"), folded.matrix, pool.vector(), 0, w);
  for (int64_t p = 0; p < 8; ++p) {
    const FoldHash& hash = folded.matrix.hash;
    const double sign = hash.negative(8 + p) ? -1 : 1;
    EXPECT_EQ(w.at(p / 4, p % 4), sign * 2.0 * static_cast<double>(hash.cell(8 + p) + 1));
  }
}

struct Case {
  FoldLayout layout;
  int64_t cells, begin, pieces;
};

/// Matrices around the vector widths on few, prime, as many and more cells; from the first weight, across a chunk's end
/// and far behind it, beyond 32 bits; in one piece and in several;
/// by rows and in tiles that fit, do not, or are larger than the matrix.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const FoldLayout& layout : {FoldLayout{1, 1}, FoldLayout{1, 17}, FoldLayout{3, 5}, FoldLayout{7, 33},
                                   FoldLayout{16, 48}, FoldLayout{34, 48, 32, 32}, FoldLayout{19, 50, 16, 16},
                                   FoldLayout{9, 70, 4, 33}, FoldLayout{5, 6, 8, 8}, FoldLayout{20, 3, 8, 0}}) {
    const int64_t count = layout.count();
    for (const int64_t cells : {int64_t{1}, int64_t{2}, int64_t{31}, int64_t{97}, count, count + 1, 3 * count + 100})
      for (const int64_t begin : {int64_t{0}, cells / 2, cells, 5 * cells - 1, int64_t{3'000'000'000}})
        all.push_back({layout, cells, begin, begin == cells ? 1 : 4});
  }
  return all;
}

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "[" << c.layout.rows << ", " << c.layout.cols << "] in tiles [" << c.layout.tile_rows << ", "
             << c.layout.tile_cols << "] from " << c.begin << " on " << c.cells << " cells, " << c.pieces << " factors";
}

TEST_P(FoldOnCpu, ExpandHasTheBitsOfTheReference) {
  const On reference("reference");
  for (const Case& c : cases()) {
    const Folded folded(c.cells, c.begin, c.layout, c.pieces);
    const Matrix pool = Matrix::random(1, c.cells, DType::f32, 1);
    const int64_t rows = c.layout.rows;
    for (const auto& [first, last] : {std::pair{int64_t{0}, rows}, {rows / 3, rows}, {rows / 3, rows / 2}}) {
      const Matrix want(last - first, c.layout.cols, DType::f32), w(last - first, c.layout.cols, DType::f32);
      fold_expand(reference, folded.matrix, pool.vector(), first, want);
      fold_expand(On("cpu"), folded.matrix, pool.vector(), first, w);
      ASSERT_TRUE(w.equals_bitwise(want)) << c << ", rows " << first << " to " << last;
    }
  }
}

TEST_P(FoldOnCpu, ContractHasTheBitsOfTheReference) {
  for (const Case& c : cases()) {
    const Folded folded(c.cells, c.begin, c.layout, c.pieces);
    const Matrix before = Matrix::random(1, c.cells, DType::f32, 1), want = before.copy(), dpool = before.copy();
    const Matrix dw = Matrix::random(c.layout.rows, c.layout.cols, DType::f32, 2);
    fold_contract(On("reference"), folded.matrix, dw.view(), want.vector());
    fold_contract(On("cpu"), folded.matrix, dw.view(), dpool.vector());
    ASSERT_TRUE(dpool.equals_bitwise(want)) << c;
  }
}

TEST(Fold, ThreadsDoNotChangeTheBits) {  // large enough to be shared out
  for (const FoldLayout& layout : {FoldLayout{130, 257}, FoldLayout{130, 257, 32, 32}}) {
    for (const int64_t cells : {331, 9000, 30'000, 33'410, 40'000, 1'000'003}) {
      for (const int64_t begin : {int64_t{0}, cells * 9 / 10, 3 * cells + 7}) {
        const Folded folded(cells, begin, layout, 3);
        const Matrix pool = Matrix::random(1, cells, DType::f32, 1), want(130, 257, DType::f32),
                     w(130, 257, DType::f32);
        const Matrix want_dpool = pool.copy();
        fold_expand(On("reference"), folded.matrix, pool.vector(), 0, want);
        fold_contract(On("reference"), folded.matrix, want.view(), want_dpool.vector());
        for (const int threads : {1, 2, 3}) {
          const On cpu("cpu", threads);
          const Matrix dpool = pool.copy();
          fold_expand(cpu, folded.matrix, pool.vector(), 0, w);
          fold_contract(cpu, folded.matrix, want.view(), dpool.vector());
          ASSERT_TRUE(w.equals_bitwise(want)) << cells << " cells, from " << begin << ", threads " << threads;
          ASSERT_TRUE(dpool.equals_bitwise(want_dpool)) << cells << " cells, from " << begin << ", threads " << threads;
        }
      }
    }
  }
}

TEST_P(FoldOnCpu, KeepsTheSignOfNothingAndOfNaN) {
  const Folded folded(40, 40, {1, 40});
  Matrix pool = Matrix::zeros(1, 40, DType::f32);
  for (int64_t j = 0; j < 20; ++j) pool.set(0, j, std::numeric_limits<float>::quiet_NaN());
  const Matrix want(1, 40, DType::f32), w(1, 40, DType::f32);
  fold_expand(On("reference"), folded.matrix, pool.vector(), 0, want);
  fold_expand(On("cpu"), folded.matrix, pool.vector(), 0, w);
  EXPECT_TRUE(w.equals_bitwise(want));
}

TEST(Fold, AFactorHoldsUpToItsEnd) {
  const Folded folded(10, 0, {1, 1}, 2, 1.0, 4.0);
  EXPECT_EQ(folded.matrix.factor(0), 1);
  EXPECT_EQ(folded.matrix.factor(4), 1);
  EXPECT_EQ(folded.matrix.factor(5), 4);
  EXPECT_EQ(folded.matrix.factor(9), 4);
  EXPECT_THROW(folded.matrix.factor(10), InternalError);
}

TEST(Fold, ContractIsTheAdjointOfExpandExactly) {
  for (const char* backend : {"reference", "cpu"}) {
    for (const FoldLayout& layout : {FoldLayout{12, 31}, FoldLayout{12, 31, 8, 16}}) {
      const On on(backend);
      const Folded folded(50, 33, layout, 3, 0.5, 2);  // integers and powers of two: no rounding
      const Matrix pool = small_integers(1, 50, 1), g = small_integers(12, 31, 2), w(12, 31, DType::f32);
      const Matrix dpool = Matrix::zeros(1, 50, DType::f32);
      fold_expand(on, folded.matrix, pool.vector(), 0, w);
      fold_contract(on, folded.matrix, g.view(), dpool.vector());
      EXPECT_EQ(dot(w, g), dot(pool, dpool)) << backend;
    }
  }
}

TEST(Fold, ContractIsTheGradientOfExpand) {
  const On on("reference");
  const Folded folded(23, 9, {5, 11, 2, 4}, 3);
  Matrix pool = Matrix::random(1, 23, DType::f64, 1);
  const Matrix w(5, 11, DType::f64), dw(5, 11, DType::f64), dpool = Matrix::zeros(1, 23, DType::f64);
  const auto loss = [&] {  // Σ w³ / 3
    fold_expand(on, folded.matrix, pool.vector(), 0, w);
    double sum = 0;
    for (int64_t e = 0; e < 55; ++e) sum += std::pow(w.at(e / 11, e % 11), 3) / 3;
    return sum;
  };
  loss();
  Matrix squares(5, 11, DType::f64);
  for (int64_t e = 0; e < 55; ++e) squares.set(e / 11, e % 11, std::pow(w.at(e / 11, e % 11), 2));
  fold_contract(on, folded.matrix, squares.view(), dpool.vector());
  expect_gradient(pool, dpool, loss);
}

TEST(Fold, RefusesWhatItCannotRead) {
  const Folded folded(20, 0, {6, 8});
  const On cpu("cpu");
  const Matrix pool = Matrix::random(1, 20, DType::f32, 1), w(6, 8, DType::f32), strided(6, 8, DType::f32, 1);
  const Matrix x = Matrix::random(3, 8, DType::f32, 2), y(3, 6, DType::f32), wide(1, 48, DType::f32);
  const auto expand = [&](const FoldedMatrix& matrix, ConstView from, int64_t row, TensorView to) {
    fold_expand(cpu, matrix, from, row, to);
  };
  EXPECT_THROW(expand(folded.matrix, pool.vector(), 0, strided), InternalError);
  EXPECT_THROW(expand(folded.matrix, pool.vector(), 1, w), InternalError);
  EXPECT_THROW(expand(folded.matrix, w.vector(), 0, w), InternalError);
  EXPECT_THROW(expand(folded.matrix, wide.vector().reshape({1, 48}).slice_cols(0, 20), 0, w), InternalError);
  EXPECT_THROW(fold_contract(cpu, folded.matrix, strided.view(), pool.vector()), InternalError);
  EXPECT_THROW(fold_contract(cpu, folded.matrix, w.view().slice_rows(0, 5), pool.vector()), InternalError);
  EXPECT_THROW(fold_gemm(cpu, folded.matrix, pool.vector(), x.view().slice_cols(0, 7), 0, y), InternalError);
  EXPECT_THROW(fold_gemm(cpu, folded.matrix, pool.vector(), x.view(), 0, y.view().slice_rows(0, 2)), InternalError);
  const TensorView aliased(wide.view().mutable_data(), {1, 20}, DType::f32);
  EXPECT_THROW(
      expand(folded.matrix, aliased.reshape({20}), 0, TensorView(wide.view().mutable_data(), {6, 8}, DType::f32)),
      InternalError);
  FoldedMatrix short_of_factors = folded.matrix;
  const FoldFactor half{10, 1.0};
  short_of_factors.factors = {&half, 1};
  EXPECT_THROW(expand(short_of_factors, pool.vector(), 0, w), InternalError);
}

}  // namespace
}  // namespace tessera::test
