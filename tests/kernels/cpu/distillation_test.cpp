// The chunk steps of distill on every instruction set.

#include "kernels/distillation.h"

#include "kernels/harness.h"

namespace tessera::test {
namespace {

class DistillOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(DistillOnCpu);

/// The running state of some rows.
struct State {
  Matrix s_max, s_sum, s_rescale, t_max, t_sum, t_rescale, cross;
  State(int64_t rows, DType dtype)
      : s_max(1, rows, dtype),
        s_sum(1, rows, dtype),
        s_rescale(1, rows, dtype),
        t_max(1, rows, dtype),
        t_sum(1, rows, dtype),
        t_rescale(1, rows, dtype),
        cross(1, rows, dtype) {}
  DistillRows rows() const {
    return {.student = {s_max.vector(), s_sum.vector(), s_rescale.vector()},
            .teacher = {t_max.vector(), t_sum.vector(), t_rescale.vector()},
            .cross = cross.vector()};
  }
};

TEST_P(DistillOnCpu, ChunksAgreeWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  const auto kernels = [](const Context& ctx) -> const Kernels& { return ctx.kernels; };
  for (const double range : {1.0, 20.0})
    for (const int64_t cols : kLengths) {
      const int64_t rows = 20;
      State got(rows, DType::f32), want(rows, DType::f64);
      kernels(cpu).distill_begin(cpu, got.rows());
      kernels(reference).distill_begin(reference, want.rows());
      for (uint64_t chunk = 0; chunk < 3; ++chunk) {
        const Matrix student = Matrix::random(rows, cols, DType::f32, chunk, range, 3), exact = student.as(DType::f64);
        const Matrix teacher = Matrix::random(rows, cols, DType::f32, 9 + chunk, range, 1),
                     exact_teacher = teacher.as(DType::f64);
        const Matrix student_exp(rows, cols, DType::f32, 2), want_exp(rows, cols, DType::f64, 2);
        const auto step = [&](const Context& ctx, const State& state, const Matrix& s, const Matrix& t,
                              const Matrix& e) {
          kernels(ctx).distill_chunk(
              ctx, {.student = s.view(), .teacher = t, .student_exp = e, .temperature = 2, .rows = state.rows()});
        };
        step(cpu, got, student, teacher, student_exp);
        step(reference, want, exact, exact_teacher, want_exp);
        // Distances of up to `range` are rounded twice, which puts exponentials off by as much; exp itself by 2 ulp.
        const double unit = (8 + 2 * range) * kUnit;
        expect_relative(student_exp, want_exp, unit);
        expect_relative(teacher, exact_teacher, unit);
      }
      expect_relative(got.s_max, want.s_max, 0);
      expect_relative(got.t_max, want.t_max, 0);
      const double unit = (static_cast<double>(cols) + 8 + 2 * range) * kUnit;
      expect_relative(got.s_sum, want.s_sum, unit);
      expect_relative(got.t_sum, want.t_sum, unit);
      expect_within(got.cross, want.cross,
                    [&](int64_t, int64_t n) { return unit * range * (1 + want.t_sum.at(0, n)); });
    }
}

TEST_P(DistillOnCpu, GradientChunkAgreesWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  const auto kernels = [](const Context& ctx) -> const Kernels& { return ctx.kernels; };
  for (const int64_t cols : kLengths) {
    const int64_t rows = 40;
    const Matrix student = Matrix::random(rows, cols, DType::f32, 1, 5, 2), exact = student.as(DType::f64);
    const Matrix teacher = Matrix::random(rows, cols, DType::f32, 2, 5, 1), want = teacher.as(DType::f64);
    State state(rows, DType::f32), exact_state(rows, DType::f64);
    for (int64_t n = 0; n < rows; ++n)
      for (State* of : {&state, &exact_state}) {
        of->s_max.set(0, n, 5);
        of->t_max.set(0, n, 5.5);
        of->s_sum.set(0, n, 0.25);
        of->t_sum.set(0, n, -0.375);
      }
    kernels(cpu).distill_gradient_chunk(
        cpu, {.student = student.view(), .teacher = teacher, .temperature = 3, .rows = state.rows()});
    kernels(reference).distill_gradient_chunk(
        reference, {.student = exact.view(), .teacher = want, .temperature = 3, .rows = exact_state.rows()});
    // Exponents reach −3.5 and are rounded three times.
    expect_within(teacher, want, [](int64_t, int64_t) { return 0.625 * (3 * 3.5 + 4) * kUnit; });
  }
}

}  // namespace
}  // namespace tessera::test
