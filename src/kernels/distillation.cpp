// The fused head of distillation, for every backend alike: chunks of both models' logits go through gemm, distill_chunk
// and softmax_chunk and are gone.
//
//             chunk 0    chunk 1   ...        for each block of R rows: one buffer, reused
//   R rows  [ z_s → e1 ][          ]          e1 = exp(z_s − maximum), of the cross-entropy
//   R rows  [    e_s   ][          ]          exponentials at the temperature
//   R rows  [ z_t → e_t][          ]
//
// Frozen weight, one pass: the three stand one below the other, so that one product a chunk forms all three sums of
// exponentials · weight, one call rescales them, and one turns them into parts of the gradient. Trained weight, two
// passes: the first finds maxima and sums, the second recomputes the logits and turns them into one gradient, which
// both products read.

#include "kernels/distillation.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {
namespace {

/// What stands in the buffer's three parts.
enum Part { kEntropy, kStudent, kTeacher, kParts };

/// Scratch for one block of rows. Vectors and matrices hold the compute dtype.
struct State {
  int64_t rows;
  TensorView logits;         // [3 · rows, chunk]; without a pass that sums products the middle part is missing
  TensorView sums, rescale;  // [3 · rows]
  TensorView products;       // [3 · rows, dim], one pass only
  SoftmaxRows softmax;
  DistillRows tempered;

  /// Rows of a stack that belong to a part.
  TensorView part(const TensorView& stack, int64_t part) const {
    return stack.slice_rows(part * rows, (part + 1) * rows);
  }
  TensorView student_logits(int64_t cols) const { return part(logits, kEntropy).slice_cols(0, cols); }
  TensorView teacher_logits(int64_t cols) const {
    return logits.slice_rows(logits.rows() - rows, logits.rows()).slice_cols(0, cols);
  }
};

bool is_one_pass(const DistillArgs& args) { return !args.dhidden.empty() && args.dweight.empty(); }

int64_t vocabulary(const LogitSource& source) { return source.weight_rows ? source.vocab : source.weight.shape[0]; }

/// The arguments of one block of rows.
DistillArgs slice(const DistillArgs& args, int64_t begin, int64_t end) {
  DistillArgs part = args;
  for (LogitSource* source : {&part.student, &part.teacher}) source->hidden = source->hidden.slice_rows(begin, end);
  part.labels = args.labels.subspan(begin, end - begin);
  for (TensorView* rows : {&part.nll, &part.kl, &part.best, &part.dhidden})
    if (!rows->empty()) *rows = rows->slice_rows(begin, end);
  return part;
}

State allocate(const Context& ctx, const DistillArgs& args) {
  const int64_t rows = args.student.hidden.rows(), dim = args.student.hidden.cols();
  const auto matrix = [&](Shape shape) { return ctx.scratch.allocate(shape, args.student.hidden.dtype); };
  State s{.rows = rows,
          .logits = matrix({(is_one_pass(args) ? kParts : kParts - 1) * rows, args.chunk}),
          .sums = matrix({kParts * rows}),
          .rescale = matrix({kParts * rows}),
          .products = {},
          .softmax = {},
          .tempered = {}};
  if (is_one_pass(args)) s.products = matrix({kParts * rows, dim});
  s.softmax = {.row_max = matrix({rows}),
               .row_sum = s.part(s.sums, kEntropy),
               .target = matrix({rows}),
               .rescale = s.part(s.rescale, kEntropy),
               .best = args.best.empty() ? ctx.scratch.allocate({rows}, DType::i32) : args.best};
  const auto model = [&](Part part) {
    return TemperedRows{.max = matrix({rows}), .sum = s.part(s.sums, part), .rescale = s.part(s.rescale, part)};
  };
  s.tempered = {.student = model(kStudent), .teacher = model(kTeacher), .cross = matrix({rows})};
  return s;
}

/// Calls f(begin, end) with both models' logits of each chunk in the buffer.
template <class F> void for_each_chunk(const Context& ctx, const DistillArgs& args, const State& s, F&& f) {
  const int64_t vocab = vocabulary(args.student);
  const auto form = [&](const LogitSource& source, int64_t begin, int64_t end, TensorView logits) {
    find_logits(ctx, {source.hidden, source.weight, source.weight_rows, source.tile}, begin, end, logits);
  };
  for (int64_t begin = 0; begin < vocab; begin += args.chunk) {
    const int64_t end = std::min(begin + args.chunk, vocab);
    form(args.student, begin, end, s.student_logits(end - begin));
    form(args.teacher, begin, end, s.teacher_logits(end - begin));
    f(begin, end);
  }
}

/// First pass: statistics, nll, kl; with a frozen weight the products too.
void forward(const Context& ctx, const DistillArgs& args, const State& s) {
  const bool sums_products = is_one_pass(args), has_gradient = !args.dhidden.empty();
  ctx.kernels.softmax_begin(ctx, s.softmax);
  ctx.kernels.distill_begin(ctx, s.tempered);
  for_each_chunk(ctx, args, s, [&](int64_t begin, int64_t end) {
    const int64_t cols = end - begin;
    const TensorView student = s.student_logits(cols);
    ctx.kernels.distill_chunk(
        ctx, {.student = student,
              .teacher = s.teacher_logits(cols),
              .student_exp = sums_products ? s.part(s.logits, kStudent).slice_cols(0, cols) : TensorView(),
              .temperature = args.temperature,
              .rows = s.tempered});
    ctx.kernels.softmax_chunk(ctx, {.logits = student, .vocab_begin = begin, .labels = args.labels, .rows = s.softmax});
    if (!sums_products) return;
    if (begin > 0) scale_rows(ctx, s.rescale, s.products);
    gemm(ctx, {.a = s.logits.slice_cols(0, cols),
               .b = args.student.weight.slice_rows(begin, end),
               .c = s.products,
               .beta = begin > 0 ? 1.0 : 0.0});
  });
  ctx.kernels.softmax_finish(ctx, {.rows = s.softmax,
                                   .nll = args.nll,
                                   .grad_scale = sums_products ? std::optional(args.grad_scale) : std::nullopt});
  ctx.kernels.distill_finish(ctx, {.rows = s.tempered,
                                   .kl = args.kl,
                                   .temperature = args.temperature,
                                   .grad_scale = has_gradient ? std::optional(args.kl_grad_scale) : std::nullopt});
}

/// dhidden <- the products by their factors, less the label's rows. The two of the divergence meet first: of equal
/// logits they cancel exactly.
void finish_one_pass(const Context& ctx, const DistillArgs& args, const State& s) {
  scale_rows(ctx, s.sums, s.products);
  embedding(ctx, args.student.weight, args.labels, args.dhidden);
  scale_rows(ctx, s.softmax.rescale, args.dhidden);
  add(ctx, s.part(s.products, kEntropy), args.dhidden);
  add(ctx, s.part(s.products, kTeacher), s.part(s.products, kStudent));
  add(ctx, s.part(s.products, kStudent), args.dhidden);
}

/// Second pass for a trained weight.
void backward(const Context& ctx, const DistillArgs& args, const State& s) {
  for_each_chunk(ctx, args, s, [&](int64_t begin, int64_t end) {
    const TensorView gradient = s.student_logits(end - begin), teacher = s.teacher_logits(end - begin);
    ctx.kernels.distill_gradient_chunk(
        ctx, {.student = gradient, .teacher = teacher, .temperature = args.temperature, .rows = s.tempered});
    ctx.kernels.softmax_gradient_chunk(ctx, {.logits = gradient,
                                             .vocab_begin = begin,
                                             .labels = args.labels,
                                             .lse = s.softmax.row_max,
                                             .grad_scale = args.grad_scale});
    add(ctx, teacher, gradient);
    gemm(ctx, {.a = gradient,
               .b = args.student.weight.slice_rows(begin, end),
               .c = args.dhidden,
               .beta = begin > 0 ? 1.0 : 0.0});
    gemm(ctx, {.a = gradient,
               .a_transpose = Transpose::yes,
               .b = args.student.hidden,
               .c = args.dweight.slice_rows(begin, end),
               .beta = 1,
               .sum = Sum::chain});
  });
}

void check_source(const Arguments& check, const LogitSource& source, int64_t rows, int64_t vocab) {
  check.matrix("hidden", source.hidden, rows, source.hidden.shape[1]);
  if (source.weight_rows)
    TS_CHECK(source.weight.empty(), "distill: weight_rows beside a weight");
  else
    check.weight("weight", source.weight, {vocab, source.hidden.shape[1]});
}

void check_arguments(const Context& ctx, const DistillArgs& args) {
  const LogitSource &student = args.student, &teacher = args.teacher;
  const Arguments check(ctx, "distill", student.hidden.dtype);
  const int64_t rows = student.hidden.shape[0], dim = student.hidden.shape[1], vocab = vocabulary(student);
  check_source(check, student, rows, vocab);
  TS_CHECK(vocabulary(teacher) == vocab, "distill: the teacher's vocabulary has {} tokens, the student's {}",
           vocabulary(teacher), vocab);
  check_source(check, teacher, rows, vocab);
  check.count("labels", static_cast<int64_t>(args.labels.size()), rows);
  check.indices("labels", args.labels, vocab);
  check.vector("nll", args.nll, rows);
  check.vector("kl", args.kl, rows);
  if (!args.best.empty()) check.integers("best", args.best, DType::i32, rows);
  if (!args.dhidden.empty()) check.matrix("dhidden", args.dhidden, rows, dim);
  if (!args.dweight.empty()) check.matrix("dweight", args.dweight, vocab, dim);
  TS_CHECK(args.dweight.empty() || !args.dhidden.empty(), "distill: dweight without dhidden");
  TS_CHECK(args.dhidden.empty() || !student.weight_rows, "distill: the student's weight_rows beside gradients");
  check.no_alias("dhidden", args.dhidden, "hidden", student.hidden);
  TS_CHECK(args.temperature > 0, "distill: a temperature of {}, expected above 0", args.temperature);
  TS_CHECK(vocab > 0 && args.chunk >= 0, "distill: a vocabulary of {} in chunks of {}", vocab, args.chunk);
}

}  // namespace

void distill(const Context& ctx, const DistillArgs& args) {
  check_arguments(ctx, args);
  const int64_t rows = args.student.hidden.shape[0];
  for (int64_t begin = 0; begin < rows; begin += kScoredRows) {
    DistillArgs block = slice(args, begin, std::min(begin + kScoredRows, rows));
    block.chunk = std::min(args.chunk > 0 ? args.chunk : kChunkColumns, vocabulary(args.student));
    const auto scope = ctx.scratch.scope();
    const State state = allocate(ctx, block);
    forward(ctx, block, state);
    if (is_one_pass(block)) finish_one_pass(ctx, block, state);
    if (!block.dweight.empty()) backward(ctx, block, state);
  }
}

}  // namespace tessera
