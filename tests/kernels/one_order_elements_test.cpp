// Ops without a sum: each element has the same bits on every instruction set of this machine, at the end of a vector
// too.

#include "kernels/one_order.h"
#include "support/optimizer_args.h"

namespace tessera::test {
namespace {

/// What the plain loops give is what all have to give.
template <class Op> void expect_plain_everywhere(Op&& op) {
  use_cpu_target("scalar");
  expect_everywhere(op(On("cpu")), op);
}

TEST_F(OneOrder, SwigluBothWays) {
  for (const int64_t dim : lengths()) {
    const int64_t rows = rows_of(dim);
    const Matrix gate = Matrix::random(rows, dim, DType::f32, 1, 20, 1), up = Matrix::random(rows, dim, DType::f32, 2),
                 dy = Matrix::random(rows, dim, DType::f32, 3);
    expect_plain_everywhere([&](const On& on) {
      const Matrix y(rows, dim, DType::f32, 1), dgate(rows, dim, DType::f32, 2), dup(rows, dim, DType::f32);
      swiglu(on, gate.view(), up.view(), y);
      swiglu_backward(on, gate.view(), up.view(), dy.view(), dgate, dup);
      Numbers numbers;
      for (const Matrix* x : {&y, &dgate, &dup}) append(numbers, *x);
      return numbers;
    });
  }
}

TEST_F(OneOrder, RopeAndDropout) {
  for (const int64_t half : {1, 3, 4, 7, 8, 16, 33}) {
    const int64_t rows = 3 + 20'000 / (4 * half);
    const Matrix x = Matrix::random(rows, 4 * half, DType::f32, 1, 2, 1), cos = Matrix::random(5, half, DType::f32, 2),
                 sin = Matrix::random(5, half, DType::f32, 3);
    std::vector<int32_t> positions;
    std::vector<int64_t> draws;
    for (int32_t r = 0; r < rows; ++r) positions.push_back(r % 5), draws.push_back(7 * r);
    const DropoutKey key{.seed = 1, .step = 2, .weight = 3, .probability = 0.3f, .draw_index = draws};
    expect_plain_everywhere([&](const On& on) {
      const Matrix turned = x.copy(), dropped(rows, 4 * half, DType::f32), added = x.copy();
      rope(on, turned, 2 * half, positions, cos.view(), sin.view(), RopeDirection::forward);
      rope(on, turned, 2 * half, positions, sin.view(), cos.view(), RopeDirection::backward);
      dropout(on, x.view(), key, dropped, Write::assign);
      dropout(on, x.view(), key, added, Write::accumulate);
      Numbers numbers;
      for (const Matrix* m : {&turned, &dropped, &added}) append(numbers, *m);
      return numbers;
    });
  }
}

TEST_F(OneOrder, ScalingConvertingAndOptimizerSteps) {
  for (const int64_t dim : lengths()) {
    const int64_t rows = rows_of(dim), count = rows * dim;
    const Matrix x = Matrix::random(rows, dim, DType::f32, 1, 2), before = Matrix::random(rows, dim, DType::f32, 2),
                 factors = Matrix::random(1, dim, DType::bf16, 3), grads = Matrix::random(1, count, DType::f32, 4),
                 state = Matrix::random(1, count, DType::f32, 5);
    expect_plain_everywhere([&](const On& on) {
      const Matrix columns = before.copy(), scaled = before.copy(), narrow(rows, dim, DType::bf16);
      scale_columns(on, x.view(), factors.vector(), columns, Write::accumulate);
      add_bias(on, factors.vector(), columns);
      scale(on, 0.3, x.view(), scaled, Write::accumulate);
      convert(on, scaled.view(), narrow);
      const Matrix w = state.copy(), m = state.copy(), v = grads.copy(), momentum = state.copy();
      for (int64_t i = 0; i < count; ++i) v.view().as<float>()[static_cast<size_t>(i)] *= row(grads)[i];
      adamw_step(on, adamw_args(w.vector(), grads.vector(), m.vector(), v.vector()));
      sgd_step(on, sgd_args(w.vector(), grads.vector(), momentum.vector()));
      Numbers numbers;
      for (const Matrix* matrix : {&columns, &scaled, &narrow, &w, &m, &v, &momentum}) append(numbers, *matrix);
      return numbers;
    });
  }
}

}  // namespace
}  // namespace tessera::test
