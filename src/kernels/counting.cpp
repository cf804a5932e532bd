#include "kernels/counting.h"

#include "kernels/cpu/ordered_sum.h"
#include "kernels/cpu/scratch.h"

namespace tessera::counting {
namespace {

void take(const Context& ctx, int64_t bytes) {
  const auto scope = ctx.scratch.scope();
  if (bytes > 0) ctx.scratch.allocate({bytes}, DType::u8);
}

/// An op that takes no scratch.
template <class... Arguments> void nothing(Arguments...) {}
template <class... Arguments> void leave_out(void (*&op)(Arguments...)) {
  if (!op) op = nothing<Arguments...>;
}

}  // namespace

const Kernels& table() {
  static const Kernels kTable = [] {
    Kernels table{};
    table.backend = "counting";
    table.gemm = [](const Context& ctx, const GemmArgs& args) {
      take(ctx, cpu::gemm_scratch_bytes(args, ctx.threads));
    };
    table.attention = [](const Context& ctx, const AttentionArgs& args) {
      take(ctx, cpu::attention_scratch_bytes(args, ctx.threads));
    };
    table.attention_backward = [](const Context& ctx, const AttentionBackwardArgs& args) {
      take(ctx, cpu::attention_backward_scratch_bytes(args, ctx.threads));
    };
    table.paged_attention = [](const Context& ctx, const PagedAttentionArgs& args) {
      take(ctx, cpu::paged_attention_scratch_bytes(args, ctx.threads));
    };
    table.fold_gemm = [](const Context& ctx, const FoldedMatrix& matrix, ConstView, ConstView, double, TensorView) {
      take(ctx, cpu::fold_gemm_scratch_bytes(matrix, ctx.threads));
    };
    table.sum_of_squares = [](const Context& ctx, ConstView x, TensorView) {
      take(ctx, cpu::sum_scratch_bytes(x.shape.count()));
    };
    table.add_dot = [](const Context& ctx, ConstView x, ConstView, ConstView, TensorView) {
      take(ctx, cpu::sum_scratch_bytes(x.shape.count()));
    };
    table.add_cosines = [](const Context& ctx, ConstView, ConstView, IndexArray<int32_t> rows, TensorView) {
      take(ctx, cpu::ordered_sum_bytes(static_cast<int64_t>(rows.size())));
    };
    Kernels::visit([&](const char*, auto op) { leave_out(table.*(op.of)); });
    return table;
  }();
  return kTable;
}

}  // namespace tessera::counting
