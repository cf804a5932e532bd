// gemm_bench [threads] [target]: the products of a training step of a SmolLM2-135M-shaped model (512 tokens, hidden
// 576, MLP 1536, LoRA of several ranks), beside the square product, the floor for them all,
// and the linked CBLAS (f32 operands).
//
// gemm_bench --list: the cases as JSON lines, and which library is linked.
// gemm_bench THREADS TARGET --serve ours|library: measures what it is told to, line by line: the number of a case and
// for how many seconds. So can scripts/bench let several programs take turns, a short while each.

#include <iostream>

#include "bench/harness.h"
#include "bench/library_gemm.h"
#include "core/error.h"
#include "core/thread_waiting.h"
#include "kernels/cpu_target.h"
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
  Sum sum = Sum::blocks;

  double gflop() const { return 2e-9 * static_cast<double>(m * n * k); }
};

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
    {"weight gradient", 1536, 576, 512, kYes, kNo, DType::f32, 1, Sum::chain},
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
    {"lora gradient", 8, 576, 512, kYes, kNo, DType::f32, 1, Sum::chain},
    {"lora gradient", 8, 1536, 512, kYes, kNo, DType::f32, 1, Sum::chain},
    {"lora gradient", 16, 576, 512, kYes, kNo, DType::f32, 1, Sum::chain},
    {"lora gradient", 32, 576, 512, kYes, kNo, DType::f32, 1, Sum::chain},
    {"lora gradient", 64, 576, 512, kYes, kNo, DType::f32, 1, Sum::chain},
    {"decode", 1, 1536, 576, kNo, kYes},
    {"decode", 1, 1536, 576, kNo, kYes, DType::bf16},
    {"decode", 4, 1536, 576, kNo, kYes, DType::bf16},
    {"decode", 8, 1536, 576, kNo, kYes, DType::bf16},
    {"decode", 16, 1536, 576, kNo, kYes, DType::bf16},
    {"decode", 32, 1536, 576, kNo, kYes, DType::bf16},
    {"square", 2048, 2048, 2048},
};

std::string text_of(const Case& c) {
  const auto letter = [](Transpose t) { return t == Transpose::yes ? 'T' : 'N'; };
  return fmt::format("{} M={} N={} K={} {}{} b={}", c.name, c.m, c.n, c.k, letter(c.a), letter(c.b),
                     name_of(c.b_dtype));
}

/// The operands of a case; the library multiplies by the matrix that b was narrowed from.
struct Operands {
  Tensor a, wide, y;
  explicit Operands(const Case& c)
      : a(random_tensor(c.a == Transpose::yes ? Shape{c.k, c.m} : Shape{c.m, c.k}, 1)),
        wide(random_tensor(c.b == Transpose::yes ? Shape{c.n, c.k} : Shape{c.k, c.n}, 2)),
        y(Shape{c.m, c.n}, DType::f32) {}
};

Tensor narrowed(const Context& ctx, const Tensor& from, DType dtype) {
  Tensor to(from.shape(), dtype);
  kernels_for({}, "reference").convert(ctx, from.view(), to.view());
  return to;
}

void run_ours(const Context& ctx, const Case& c, const Operands& o, double seconds) {
  const Tensor b = narrowed(ctx, o.wide, c.b_dtype);
  const GemmArgs args{.a = o.a.view(),
                      .a_transpose = c.a,
                      .b = b.view(),
                      .b_transpose = c.b,
                      .c = o.y.view(),
                      .beta = c.beta,
                      .sum = c.sum};
  report("gemm", text_of(c), ctx.threads, measure([&] { gemm(ctx, args); }, seconds), c.gflop(), "GFLOP/s");
}

/// The same product by the library, with its own threads.
void run_library([[maybe_unused]] const Case& c, [[maybe_unused]] int threads, [[maybe_unused]] const Operands& o,
                 [[maybe_unused]] double seconds) {
#ifdef TESSERA_BLAS_NAME
  set_library_threads(threads);
  const Timing t = measure([&] { library_sgemm(c.m, c.n, c.k, o.a, c.a, o.wide, c.b, c.beta, o.y); }, seconds);
  report(TESSERA_BLAS_NAME, text_of(c), threads, t, c.gflop(), "GFLOP/s");
#endif
}

void list_cases() {
  for (const Case& c : kCases)
    fmt::print(R"({{"case": "{}", "name": "{}", "m": {}, "n": {}, "k": {}, "a_transposed": {}, "b_transposed": {}, )"
               R"("b_dtype": "{}", "beta": {}}})"
               "\n",
               text_of(c), c.name, c.m, c.n, c.k, c.a == Transpose::yes, c.b == Transpose::yes, name_of(c.b_dtype),
               c.beta);
#ifdef TESSERA_BLAS_NAME
  fmt::print(R"({{"library": "{}", "config": "{}"}})"
             "\n",
             TESSERA_BLAS_NAME, library_config());
#endif
}

void run_all(const Context& ctx) {
  constexpr double kSeconds = 0.5;
  for (const Case& c : kCases) {
    const Operands operands(c);
    run_ours(ctx, c, operands, kSeconds);
    if (c.b_dtype == DType::f32) run_library(c, ctx.threads, operands, kSeconds);
  }
}

void serve(const Context& ctx, std::string_view whose) {
  size_t number = 0;
  for (double seconds = 0; std::cin >> number >> seconds;) {
    if (number >= std::size(kCases))
      throw UserError("", fmt::format("there is no case {}", number), "gemm_bench --list");
    const Case& c = kCases[number];
    const Operands operands(c);
    if (whose == "ours")
      run_ours(ctx, c, operands, seconds);
    else
      run_library(c, ctx.threads, operands, seconds);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  shorten_thread_spinning(argv);  // as trainer
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  if (!words.empty() && words[0] == "--list") return bench::list_cases(), 0;
  if (words.size() > 1) use_cpu_target(words[1]);
  Arena scratch(64 << 20);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, "cpu"),
                    .scratch = scratch,
                    .threads = bench::threads_from(argc, argv)};
  if (words.size() > 3 && words[2] == "--serve")
    bench::serve(ctx, words[3]);
  else
    bench::run_all(ctx);
}
