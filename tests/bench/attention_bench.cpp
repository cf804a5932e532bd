// attention_bench [threads] [target] [cases]: forward and backward attention of the shapes that recipes train, beside
// the square product of the same run; `cases` leaves those whose name has this text. FLOPs are those a causal mask
// leaves: forward A = 2·T·heads·head_dim a token in a document of T tokens, backward 2.5·A.

#include "bench/harness.h"
#include "core/error.h"
#include "kernels/attention.h"
#include "kernels/cpu_target.h"
#include "kernels/gemm.h"
#include "kernels/table.h"

namespace tessera::bench {
namespace {

struct Case {
  std::string_view name;
  int64_t documents, length, heads, kv_heads, head_dim, window = 0;
};

void run(const Context& ctx, const Case& c, std::string_view wanted) {
  const std::string shape =
      fmt::format("{} documents={} T={} heads={}/{} d={}{}", c.name, c.documents, c.length, c.heads, c.kv_heads,
                  c.head_dim, c.window > 0 ? fmt::format(" window={}", c.window) : "");
  if (shape.find(wanted) == std::string::npos) return;
  const int64_t tokens = c.documents * c.length, width = c.heads * c.head_dim, kv_width = c.kv_heads * c.head_dim;
  std::vector<AttentionSegment> segments;
  for (int64_t t = 0; t < tokens; t += c.length) segments.push_back({t, t + c.length, t, t + c.length});
  const Tensor q = random_tensor({tokens, width}, 1), k = random_tensor({tokens, kv_width}, 2),
               v = random_tensor({tokens, kv_width}, 3);
  const Tensor dout = random_tensor({tokens, width}, 4), out({tokens, width}, DType::f32),
               lse({tokens, c.heads}, DType::f32);
  const Tensor dq({tokens, width}, DType::f32), dk({tokens, kv_width}, DType::f32), dv({tokens, kv_width}, DType::f32);
  const double scale = 0.125;
  const AttentionArgs forward{.q = q.view(),
                              .k = k.view(),
                              .v = v.view(),
                              .out = out.view(),
                              .lse = lse.view(),
                              .heads = c.heads,
                              .kv_heads = c.kv_heads,
                              .head_dim = c.head_dim,
                              .scale = scale,
                              .segments = segments,
                              .window = c.window};
  const AttentionBackwardArgs backward{.q = q.view(),
                                       .k = k.view(),
                                       .v = v.view(),
                                       .out = out.view(),
                                       .lse = lse.view(),
                                       .dout = dout.view(),
                                       .dq = dq.view(),
                                       .dk = dk.view(),
                                       .dv = dv.view(),
                                       .heads = c.heads,
                                       .kv_heads = c.kv_heads,
                                       .head_dim = c.head_dim,
                                       .scale = scale,
                                       .segments = segments,
                                       .window = c.window};
  const int64_t seen = c.window > 0 ? 2 * c.window - c.window * c.window / c.length : c.length;  // twice the mean
  const double gflop = 1e-9 * static_cast<double>(tokens * 2 * seen * width);
  report("attention", shape, ctx.threads, measure([&] { attention(ctx, forward); }), gflop, "GFLOP/s");
  report("attention_backward", shape, ctx.threads, measure([&] { attention_backward(ctx, backward); }), 2.5 * gflop,
         "GFLOP/s");
  report("attention_both", shape, ctx.threads,
         measure([&] { attention(ctx, forward), attention_backward(ctx, backward); }), 3.5 * gflop, "GFLOP/s");
}

void run_floor(const Context& ctx) {
  const Tensor a = random_tensor({2048, 2048}, 1), b = random_tensor({2048, 2048}, 2), c({2048, 2048}, DType::f32);
  const Timing t = measure([&] { gemm(ctx, {.a = a.view(), .b = b.view(), .c = c.view()}); });
  report("gemm", "square M=2048 N=2048 K=2048", ctx.threads, t, 2e-9 * 2048 * 2048 * 2048, "GFLOP/s");
}

const Case kCases[] = {
    {"SmolLM2-135M", 1, 512, 9, 3, 64},   {"SmolLM2-135M", 4, 512, 9, 3, 64}, {"SmolLM2-135M", 1, 2048, 9, 3, 64},
    {"GPT-2", 1, 1024, 12, 12, 64},       {"Llama", 1, 512, 8, 2, 128},       {"embedded world", 16, 20, 4, 2, 32},
    {"embedded world", 16, 30, 4, 2, 32}, {"stories", 2, 256, 8, 4, 8},       {"Mistral", 1, 2048, 8, 2, 128},
    {"Mistral", 1, 2048, 8, 2, 128, 256},
};

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc > 2) use_cpu_target(argv[2]);
  Arena scratch(64 << 20);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, "cpu"),
                    .scratch = scratch,
                    .threads = bench::threads_from(argc, argv)};
  bench::run_floor(ctx);
  for (const bench::Case& c : bench::kCases) bench::run(ctx, c, argc > 3 ? argv[3] : "");
}
