#include "model/distill_head.h"

#include "core/error.h"
#include "kernels/distillation.h"
#include "model/head_parts.h"

namespace tessera {
namespace {

LogitSource source_of(const NormedRows& n, const HeadWeight& weight) {
  return {.hidden = n.normed,
          .weight = weight.stored,
          .weight_rows = weight.made,
          .vocab = weight.vocab,
          .tile = weight.tile};
}

/// Of rows that read the student's weights alike.
void distill_alike(const Pass& pass, const HeadPart& part, const PoolRead& values, ConstView hidden,
                   const DistillHeadArgs& all) {
  const Context& ctx = pass.ctx;
  const auto scope = ctx.scratch.scope();
  const HeadArgs& head = all.head;
  const TeacherHead& teacher = all.teacher;
  const bool backward = !head.dhidden.empty();
  const NormedRows n = norm_rows(ctx, part, values, hidden, head.rows),
                   teachers = norm_rows(ctx, teacher.part, teacher.read, teacher.hidden, teacher.rows);
  const HeadWeight weight = head_weight(ctx, part, values, backward ? Tiles::none : Tiles::allowed),
                   teachers_weight = head_weight(ctx, teacher.part, teacher.read, Tiles::allowed);
  DistillArgs args{.student = source_of(n, weight),
                   .teacher = source_of(teachers, teachers_weight),
                   .labels = head.labels,
                   .temperature = all.temperature,
                   .grad_scale = all.nll_weight,
                   .kl_grad_scale = all.kl_weight,
                   .nll = head.nll,
                   .kl = all.kl,
                   .best = head.best,
                   .dhidden = {},
                   .dweight = {}};
  if (!backward) return distill(ctx, args);
  backward_of_rows(pass, part, n, head.rows, head.dhidden, [&](TensorView dnormed, TensorView dweight) {
    args.dhidden = dnormed;
    args.dweight = dweight;
    distill(ctx, args);
  });
}

}  // namespace

void distill_rows(const Pass& pass, const HeadPart& part, ConstView hidden, const DistillHeadArgs& args) {
  TS_CHECK(args.teacher.rows.size() == args.head.rows.size(), "distill_rows: {} rows of the teacher for {} scored ones",
           args.teacher.rows.size(), args.head.rows.size());
  for_rows_alike(pass, part, args.head.rows, [&](const PoolRead& values, int64_t first, int64_t count) {
    DistillHeadArgs alike = args;
    alike.head = slice_rows(args.head, first, count);
    alike.teacher.rows = args.teacher.rows.subspan(first, count);
    alike.kl = args.kl.slice_rows(first, first + count);
    distill_alike(pass, part, values, hidden, alike);
  });
}

}  // namespace tessera
