#include "kernels/counting.h"

#include "kernels/cpu/scratch.h"

namespace tessera::counting {
namespace {

void take(const Context& ctx, int64_t bytes) {
  const auto scope = ctx.scratch.scope();
  if (bytes > 0) ctx.scratch.allocate({bytes}, DType::u8);
}

}  // namespace

const Kernels& table() {
  static const Kernels kTable{
      .backend = "counting",
      .gemm = [](const Context& ctx, const GemmArgs& args) { take(ctx, cpu::gemm_scratch_bytes(args, ctx.threads)); },
      .rms_norm = [](const Context&, ConstView, ConstView, double, TensorView, TensorView) {},
      .rms_norm_backward = [](const Context& ctx, ConstView x, ConstView, ConstView, ConstView, TensorView,
                              TensorView dweight) { take(ctx, cpu::rms_norm_backward_scratch_bytes(x, dweight)); },
      .rope = [](const Context&, TensorView, int64_t, std::span<const int32_t>, ConstView, ConstView, RopeDirection) {},
      .attention = [](const Context& ctx,
                      const AttentionArgs& args) { take(ctx, cpu::attention_scratch_bytes(args, ctx.threads)); },
      .attention_backward =
          [](const Context& ctx, const AttentionBackwardArgs& args) {
            take(ctx, cpu::attention_backward_scratch_bytes(args, ctx.threads));
          },
      .swiglu = [](const Context&, ConstView, ConstView, TensorView) {},
      .swiglu_backward = [](const Context&, ConstView, ConstView, ConstView, TensorView, TensorView) {},
      .embedding = [](const Context&, ConstView, std::span<const int32_t>, TensorView) {},
      .embedding_backward = [](const Context&, std::span<const int32_t>, ConstView, TensorView) {},
      .softmax_chunk = [](const Context&, const SoftmaxChunkArgs&) {},
      .softmax_gradient_chunk = [](const Context&, const SoftmaxGradientArgs&) {},
      .scale_rows = [](const Context&, ConstView, TensorView) {},
      .add = [](const Context&, ConstView, TensorView) {},
      .convert = [](const Context&, ConstView, TensorView) {},
      .gather_shards = [](const Context&, ConstView, std::span<const int32_t>, TensorView) {},
      .scatter_shards_add = [](const Context&, std::span<const int32_t>, ConstView, TensorView) {},
      .fold_expand = [](const Context&, const FoldedMatrix&, ConstView, int64_t, TensorView) {},
      .fold_contract = [](const Context&, const FoldedMatrix&, ConstView, TensorView) {},
      .fold_gemm = [](const Context& ctx, const FoldedMatrix& matrix, ConstView, ConstView, double,
                      TensorView) { take(ctx, cpu::fold_gemm_scratch_bytes(matrix, ctx.threads)); },
      .dropout = [](const Context&, ConstView, const DropoutKey&, TensorView, Write) {},
      .sum_of_squares =
          [](const Context& ctx, ConstView x) {
            take(ctx, cpu::sum_of_squares_scratch_bytes(x.shape.count()));
            return 0.0;
          },
      .adamw_step = [](const Context&, const AdamWArgs&) {},
      .sgd_step = [](const Context&, const SgdArgs&) {},
      .perturb = [](const Context&, ConstView, int64_t, const Direction&, float, TensorView) {},
      .vote_update = [](const Context&, std::span<float>, int64_t, std::span<const VoteGroup>) {},
      .vote_sum = [](const Context&, int64_t, const VoteGroup&, std::span<int32_t>) {},
      .state_digest = [](const Context&, std::span<const float>, int64_t) { return StateDigest{}; },
  };
  return kTable;
}

}  // namespace tessera::counting
