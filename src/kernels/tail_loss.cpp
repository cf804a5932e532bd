#include "kernels/tail_loss.h"

#include <algorithm>
#include <functional>

#include "kernels/checks.h"

namespace tessera {

void tail_loss(const Context& ctx, const TailLossArgs& args) {
  const Arguments check(ctx, "tail_loss", args.student.dtype);
  const int64_t tokens = args.student.shape[0], dim = args.student.shape[1];
  check.matrix("student", args.student, tokens, dim);
  check.matrix("teacher", args.teacher, tokens, dim);
  check.indices("rows", args.rows, tokens);
  const auto rows = args.rows.host();
  TS_CHECK(is_counting(ctx) || std::ranges::adjacent_find(rows, std::greater_equal<>()) == rows.end(),
           "tail_loss: rows are not ascending");
  TS_CHECK(args.eps > 0, "tail_loss: eps is {}, expected above 0", args.eps);
  check.sums("loss", args.loss, static_cast<int64_t>(args.rows.size()));
  if (!args.dstudent.empty()) {
    check.matrix("dstudent", args.dstudent, tokens, dim);
    check.no_alias("dstudent", args.dstudent, "student", args.student);
    check.no_alias("dstudent", args.dstudent, "teacher", args.teacher);
  }
  ctx.kernels.tail_loss(ctx, args);
}

}  // namespace tessera
