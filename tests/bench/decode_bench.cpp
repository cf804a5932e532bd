// decode_bench [threads] [target]: products of few rows with weights that come from memory, as in decoding, beside a
// plain read of as many bytes. The weights are those of many layers, 256 MB of each type, read once a pass.

#include <numeric>

#include "bench/plain_read.h"
#include "kernels/cpu_target.h"
#include "kernels/gemm.h"
#include "kernels/table.h"

namespace tessera::bench {
namespace {

constexpr int64_t kBytes = int64_t{256} << 20;

void report_plain_read(const Tensor& weights, int threads) {
  report("read", "plain", threads, read_plainly(weights, threads), 1e-9 * static_cast<double>(kBytes), "GB/s");
}

void run(const Context& ctx, int64_t rows, int64_t n, int64_t k, DType dtype, const Tensor& memory) {
  const int64_t bytes = n * k * size_of(dtype), layers = kBytes / bytes;
  const Tensor x = random_tensor({rows, k}, 1), y(Shape{rows, n}, DType::f32);
  const auto* weights = static_cast<const std::byte*>(memory.view().data);
  const Timing t = measure([&] {
    for (int64_t layer = 0; layer < layers; ++layer)
      gemm(ctx, {.a = x.view(),
                 .b = ConstView(weights + layer * bytes, {n, k}, dtype),
                 .b_transpose = Transpose::yes,
                 .c = y.view()});
  });
  report("decode", fmt::format("M={} N={} K={} b={}", rows, n, k, name_of(dtype)), ctx.threads, t,
         1e-9 * static_cast<double>(layers * bytes), "GB/s");
}

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
  Tensor memory(Shape{bench::kBytes / 4}, DType::f32);
  for (float& x : memory.as<float>()) x = 0x1.010p-8f;  // finite in every type
  bench::report_plain_read(memory, ctx.threads);
  for (const int64_t rows : {1, 2, 4, 8, 12, 16})
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) bench::run(ctx, rows, 1536, 576, dtype, memory);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) bench::run(ctx, 1, 576, 1536, dtype, memory);
  bench::report_plain_read(memory, ctx.threads);
}
