// gemm_bench [threads] [backend]: the products of a training step of a SmolLM2-135M-shaped model (512 tokens, hidden
// 576, MLP 1536, LoRA of several ranks), beside the square product, the floor for them all,
// and the linked CBLAS (f32 operands).

#include "bench/harness.h"
#include "bench/library_gemm.h"
#include "core/error.h"
#include "kernels/gemm.h"
#include "kernels/table.h"

namespace tessera::bench {
namespace {

struct Case {
  std::string_view name;
  int64_t m, n, k;
  Transpose a = Transpose::no, b = Transpose::no;
  DType b_dtype = DType::f32;
  double beta = 0;
};

Tensor narrowed(const Context& ctx, const Tensor& from, DType dtype) {
  Tensor to(from.shape(), dtype);
  kernels_for({}, "reference").convert(ctx, from.view(), to.view());
  return to;
}

#ifdef TESSERA_BLAS_NAME
/// The same product by the library, with its own threads.
void run_library(const Case& c, int threads, const Tensor& a, const Tensor& b, const Tensor& y,
                 std::string_view shape) {
  set_library_threads(threads);
  const Timing t = measure([&] { library_sgemm(c.m, c.n, c.k, a, c.a, b, c.b, c.beta, y); });
  report(TESSERA_BLAS_NAME, shape, threads, t, 2e-9 * static_cast<double>(c.m * c.n * c.k), "GFLOP/s");
}
#endif

void run(const Context& ctx, const Case& c) {
  const bool at = c.a == Transpose::yes, bt = c.b == Transpose::yes;
  const Tensor a = random_tensor(at ? Shape{c.k, c.m} : Shape{c.m, c.k}, 1);
  const Tensor wide = random_tensor(bt ? Shape{c.n, c.k} : Shape{c.k, c.n}, 2);
  const Tensor b = narrowed(ctx, wide, c.b_dtype);
  const Tensor y(Shape{c.m, c.n}, DType::f32);
  const GemmArgs args{
      .a = a.view(), .a_transpose = c.a, .b = b.view(), .b_transpose = c.b, .c = y.view(), .beta = c.beta};
  const Timing t = measure([&] { gemm(ctx, args); });
  const std::string shape = fmt::format("{} M={} N={} K={} {}{} b={}", c.name, c.m, c.n, c.k, at ? 'T' : 'N',
                                        bt ? 'T' : 'N', name_of(c.b_dtype));
  report("gemm", shape, ctx.threads, t, 2e-9 * static_cast<double>(c.m * c.n * c.k), "GFLOP/s");
#ifdef TESSERA_BLAS_NAME
  if (c.b_dtype == DType::f32) run_library(c, ctx.threads, a, wide, y, shape);
#endif
}

constexpr Transpose kYes = Transpose::yes, kNo = Transpose::no;

const Case kCases[] = {
    {"square", 2048, 2048, 2048},
    {"q forward", 512, 576, 576, kNo, kYes},
    {"q forward", 512, 576, 576, kNo, kYes, DType::bf16},
    {"q forward", 512, 576, 576, kNo, kYes, DType::f16},
    {"k forward", 512, 192, 576, kNo, kYes},
    {"up forward", 512, 1536, 576, kNo, kYes},
    {"up forward", 512, 1536, 576, kNo, kYes, DType::bf16},
    {"down forward", 512, 576, 1536, kNo, kYes},
    {"down forward", 512, 576, 1536, kNo, kYes, DType::bf16},
    {"head forward", 512, 4096, 576, kNo, kYes, DType::bf16},
    {"q backward", 512, 576, 576},
    {"k backward", 512, 576, 192},
    {"up backward", 512, 576, 1536, kNo, kNo, DType::bf16},
    {"down backward", 512, 1536, 576, kNo, kNo, DType::bf16},
    {"head backward", 512, 576, 4096, kNo, kNo, DType::bf16, 1},
    {"weight gradient", 1536, 576, 512, kYes, kNo, DType::f32, 1},
    {"lora in", 512, 8, 576, kNo, kYes},
    {"lora in", 512, 8, 1536, kNo, kYes},
    {"lora in", 512, 16, 576, kNo, kYes},
    {"lora in", 512, 32, 576, kNo, kYes},
    {"lora in", 512, 64, 576, kNo, kYes},
    {"lora out", 512, 576, 8, kNo, kNo, DType::f32, 1},
    {"lora out", 512, 1536, 8, kNo, kNo, DType::f32, 1},
    {"lora out", 512, 576, 16, kNo, kNo, DType::f32, 1},
    {"lora out", 512, 576, 32, kNo, kNo, DType::f32, 1},
    {"lora out", 512, 576, 64, kNo, kNo, DType::f32, 1},
    {"lora gradient", 8, 576, 512, kYes, kNo, DType::f32, 1},
    {"lora gradient", 8, 1536, 512, kYes, kNo, DType::f32, 1},
    {"lora gradient", 16, 576, 512, kYes, kNo, DType::f32, 1},
    {"lora gradient", 32, 576, 512, kYes, kNo, DType::f32, 1},
    {"lora gradient", 64, 576, 512, kYes, kNo, DType::f32, 1},
    {"decode", 1, 1536, 576, kNo, kYes},
    {"decode", 1, 1536, 576, kNo, kYes, DType::bf16},
    {"decode", 4, 1536, 576, kNo, kYes, DType::bf16},
    {"decode", 8, 1536, 576, kNo, kYes, DType::bf16},
    {"decode", 16, 1536, 576, kNo, kYes, DType::bf16},
    {"decode", 32, 1536, 576, kNo, kYes, DType::bf16},
    {"square", 2048, 2048, 2048},
};

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  Arena scratch(64 << 20);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, argc > 2 ? argv[2] : "cpu"),
                    .scratch = scratch,
                    .threads = bench::threads_from(argc, argv)};
  for (const bench::Case& c : bench::kCases) bench::run(ctx, c);
}
