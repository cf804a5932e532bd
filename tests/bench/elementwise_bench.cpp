// elementwise_bench [threads] [backend]: the ops around the products of a training step of a SmolLM2-135M-shaped model
// (512 tokens, hidden 576, MLP 1536, vocabulary 49152). "add" of long vectors is the floor: plain memory traffic.

#include "bench/harness.h"
#include "kernels/table.h"
#include "support/optimizer_args.h"

namespace tessera::bench {
namespace {

constexpr int64_t kTokens = 512, kHidden = 576, kMlp = 1536, kVocab = 49152, kLong = int64_t{1} << 24;

/// One op, and how many bytes a call reads and writes at least.
template <class Work> void run(const Context& ctx, std::string_view name, int64_t bytes, Work&& work) {
  report("elementwise", name, ctx.threads, measure(work, 0.2), 1e-9 * static_cast<double>(bytes), "GB/s");
}

void run_rows(const Context& ctx) {
  const Tensor x = random_tensor({kTokens, kHidden}, 1), dy = random_tensor({kTokens, kHidden}, 2);
  const Tensor weight = random_tensor({kHidden}, 3);
  const Tensor y({kTokens, kHidden}, DType::f32), inv({kTokens}, DType::f32), dweight({kHidden}, DType::f32);
  const int64_t bytes = y.view().bytes();
  run(ctx, "rms_norm", 2 * bytes, [&] { rms_norm(ctx, x.view(), weight.view(), 1e-5, y, inv); });
  run(ctx, "rms_norm_backward", 4 * bytes,
      [&] { rms_norm_backward(ctx, x.view(), weight.view(), inv.view(), dy.view(), y, dweight); });
  run(ctx, "scale_rows", 2 * bytes, [&] { scale_rows(ctx, inv.view(), y); });

  const Tensor cos = random_tensor({kTokens, 32}, 4), sin = random_tensor({kTokens, 32}, 5);
  std::vector<int32_t> positions;
  std::vector<int64_t> draws;
  for (int t = 0; t < kTokens; ++t) positions.push_back(t), draws.push_back(t);
  run(ctx, "rope", 2 * bytes, [&] { rope(ctx, y, 64, positions, cos.view(), sin.view(), RopeDirection::forward); });
  const DropoutKey key{.seed = 1, .step = 2, .weight = 3, .probability = 0.1f, .draw_index = draws};
  run(ctx, "dropout", 2 * bytes, [&] { dropout(ctx, x.view(), key, y, Write::assign); });
}

void run_mlp(const Context& ctx) {
  const Tensor gate = random_tensor({kTokens, kMlp}, 1), up = random_tensor({kTokens, kMlp}, 2);
  const Tensor dy = random_tensor({kTokens, kMlp}, 3), y({kTokens, kMlp}, DType::f32), dup({kTokens, kMlp}, DType::f32);
  const int64_t bytes = y.view().bytes();
  run(ctx, "swiglu", 3 * bytes, [&] { swiglu(ctx, gate.view(), up.view(), y); });
  run(ctx, "swiglu_backward", 5 * bytes, [&] { swiglu_backward(ctx, gate.view(), up.view(), dy.view(), y, dup); });
}

/// The two softmax steps over one chunk of logits; the values decay to zero over the calls, which costs the same.
void run_head(const Context& ctx) {
  const int64_t chunk = kChunkColumns;
  const Tensor logits = random_tensor({kTokens, chunk}, 1);
  const Tensor max = random_tensor({kTokens}, 2), sum({kTokens}, DType::f32), target({kTokens}, DType::f32);
  const Tensor rescale({kTokens}, DType::f32);
  const std::vector<int32_t> labels(kTokens, 7);
  std::vector<int32_t> best(kTokens, 0);
  const int64_t bytes = 2 * logits.view().bytes();
  run(ctx, "softmax_chunk", bytes, [&] {
    ctx.kernels.softmax_chunk(
        ctx, {.logits = logits, .vocab_begin = 0, .labels = labels, .rows = {max, sum, target, rescale, best}});
  });
  run(ctx, "softmax_gradient_chunk", bytes, [&] {
    ctx.kernels.softmax_gradient_chunk(
        ctx, {.logits = logits, .vocab_begin = 0, .labels = labels, .lse = max.view(), .grad_scale = 0.5});
  });

  // The same of a student and its teacher: two reads, two writes.
  const Tensor teacher = random_tensor({kTokens, chunk}, 3), student_exp({kTokens, chunk}, DType::f32);
  const Tensor t_max = random_tensor({kTokens}, 4), t_sum({kTokens}, DType::f32), t_rescale({kTokens}, DType::f32);
  const DistillRows rows{.student = {max, sum, rescale}, .teacher = {t_max, t_sum, t_rescale}, .cross = target};
  run(ctx, "distill_chunk", 2 * bytes, [&] {
    ctx.kernels.distill_chunk(
        ctx,
        {.student = logits.view(), .teacher = teacher, .student_exp = student_exp, .temperature = 2, .rows = rows});
  });
  run(ctx, "distill_gradient_chunk", bytes * 3 / 2, [&] {
    ctx.kernels.distill_gradient_chunk(ctx,
                                       {.student = logits.view(), .teacher = teacher, .temperature = 2, .rows = rows});
  });
}

/// The whole head with a frozen weight, forward and backward, without and with a teacher: two products of the hidden
/// states with the vocabulary against five.
void run_whole_head(const Context& ctx) {
  const Tensor hidden = random_tensor({kTokens, kHidden}, 1), teacher = random_tensor({kTokens, kHidden}, 2),
               weight = random_tensor({kVocab, kHidden}, 3);
  const Tensor nll({kTokens}, DType::f32), kl({kTokens}, DType::f32), dhidden({kTokens, kHidden}, DType::f32);
  const std::vector<int32_t> labels(kTokens, 7);
  const double product = 1e-9 * 2 * kTokens * kHidden * kVocab;
  report("elementwise", "cross_entropy", ctx.threads, measure([&] {
           cross_entropy(ctx, {.hidden = hidden.view(),
                               .weight = weight.view(),
                               .labels = labels,
                               .nll = nll,
                               .best = {},
                               .dhidden = dhidden,
                               .dweight = {}});
         }),
         2 * product, "GFLOP/s");
  report("elementwise", "distill", ctx.threads, measure([&] {
           distill(ctx, {.student = {.hidden = hidden.view(), .weight = weight.view()},
                         .teacher = {.hidden = teacher.view(), .weight = weight.view()},
                         .labels = labels,
                         .temperature = 2,
                         .nll = nll,
                         .kl = kl,
                         .best = {},
                         .dhidden = dhidden,
                         .dweight = {}});
         }),
         5 * product, "GFLOP/s");
}

void run_flat(const Context& ctx) {
  const Tensor x = random_tensor({kLong}, 1), y = random_tensor({kLong}, 2), m({kLong}, DType::f32);
  const Tensor v({kLong}, DType::f32), narrow({kLong}, DType::bf16), sum({1}, DType::f64);
  run(ctx, "add", 3 * x.view().bytes(), [&] { add(ctx, x.view(), y); });
  run(ctx, "convert to bf16", x.view().bytes() * 3 / 2, [&] { convert(ctx, x.view(), narrow); });
  run(ctx, "convert from bf16", x.view().bytes() * 3 / 2, [&] { convert(ctx, narrow.view(), y); });
  run(ctx, "sum_of_squares", x.view().bytes(), [&] { sum_of_squares(ctx, x.view(), sum); });
  const AdamWArgs args = test::adamw_args(y.view(), x.view(), m.view(), v.view());
  run(ctx, "adamw_step", 7 * x.view().bytes(), [&] { adamw_step(ctx, args); });
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  Arena scratch(int64_t{64} << 20);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, argc > 2 ? argv[2] : ""),
                    .scratch = scratch,
                    .threads = bench::threads_from(argc, argv)};
  bench::run_rows(ctx);
  bench::run_mlp(ctx);
  bench::run_head(ctx);
  bench::run_whole_head(ctx);
  bench::run_flat(ctx);
}
