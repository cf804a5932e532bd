// free_order_bench [threads] [target] [seconds]: what one order for every sum costs (docs/determinism.md). Each kernel
// takes turns with forms that add in whatever order is fastest, in one process; the fastest is printed beside it.
// The forms are here for that alone: free_products-inl.h, free_rows-inl.h, free_attention-inl.h.
//
// Packed products have no other form. Their two orders, blocks of 384 and one chain, are printed beside each other.

#include "kernels/cpu/targets.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/free_order_bench.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// Behind foreach_target.h, once per instruction set.
#include "bench/free_attention-inl.h"
#include "bench/free_products-inl.h"
#include "bench/free_rows-inl.h"

#if HWY_ONCE
#include <omp.h>

#include <functional>

#include "bench/harness.h"
#include "core/error.h"
#include "core/thread_waiting.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu_target.h"
#include "kernels/table.h"

namespace tessera::free_order {

HWY_EXPORT(thin_block);
HWY_EXPORT(norm_rows);
HWY_EXPORT(norm_backward_rows);
HWY_EXPORT(exponentials_of_row);
HWY_EXPORT(greatest_of_row);
HWY_EXPORT(squares_of_run);
HWY_EXPORT(attention_task);

namespace {

using cpu::parallel_for;

/// C = A · Bᵀ, few rows or few columns; the longer side is shared out as skinny_gemm does.
void thin_product(const Context& ctx, const GemmArgs& g, bool streams) {
  const int64_t m = g.c.rows(), n = g.c.cols(), length = std::max(m, n), step = m >= n ? 48 : 96;
  const auto block = HWY_DYNAMIC_DISPATCH(thin_block);
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads) if (length > step)
  for (int64_t begin = 0; begin < length; begin += step) {
    const int64_t end = std::min(length, begin + step);
    m >= n ? block(g, streams, begin, end, 0, n) : block(g, streams, 0, m, begin, end);
  }
}

void norm(const Context& ctx, ConstView x, ConstView weight, TensorView y, TensorView inv_rms) {
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(norm_rows)(x, weight, 1e-5, y, inv_rms.row<float>(0), begin, end);
  });
}

/// dweight of blocks of rows, which are then added. partial: [blocks, dim].
void norm_backward(const Context& ctx, ConstView x, ConstView weight, ConstView inv_rms, ConstView dy, TensorView dx,
                   TensorView dweight, TensorView partial) {
  constexpr int64_t kRows = 64;
  const int64_t dim = x.cols(), blocks = (x.rows() + kRows - 1) / kRows;
  parallel_for(ctx, blocks, kRows * dim, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      float* sums = dweight.empty() ? nullptr : partial.row<float>(b);
      if (sums) std::fill_n(sums, dim, 0.0f);
      HWY_DYNAMIC_DISPATCH(norm_backward_rows)
      (x, weight, inv_rms.row<float>(0), dy, dx, sums, b * kRows, std::min((b + 1) * kRows, x.rows()));
    }
  });
  if (dweight.empty()) return;
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < dim; ++i) dweight.row<float>(0)[i] += partial.row<float>(b)[i];
}

/// Maximum, exponentials and their sum of each row.
void softmax(const Context& ctx, TensorView logits, TensorView max, TensorView sum) {
  parallel_for(ctx, logits.rows(), logits.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float *row = logits.row<float>(n), &top = max.row<float>(0)[n], &total = sum.row<float>(0)[n];
      const float before = top;
      top = std::max(before, HWY_DYNAMIC_DISPATCH(greatest_of_row)(row, logits.cols()));
      total = total * std::exp(before - top) + HWY_DYNAMIC_DISPATCH(exponentials_of_row)(row, logits.cols(), top);
    }
  });
}

double squares(const Context& ctx, std::span<const float> x) {
  const auto count = static_cast<int64_t>(x.size());
  double sum = 0;
#pragma omp parallel for num_threads(ctx.threads) reduction(+ : sum)
  for (int64_t t = 0; t < ctx.threads; ++t) {
    const int64_t begin = count / 64 * t / ctx.threads * 64, end = count / 64 * (t + 1) / ctx.threads * 64;
    sum += HWY_DYNAMIC_DISPATCH(squares_of_run)(x.data() + begin, end - begin);
  }
  return sum;
}

/// A task owns the heads of one key head or, where that would leave threads idle, one head with copies of its own.
/// copies: dk's and dv's, [2, keys, heads · head_dim].
void attention_backward(const Context& ctx, const AttentionBackwardArgs& args, TensorView copies, TensorView scratch) {
  const int64_t dim = args.head_dim, group = args.heads / args.kv_heads, width = args.heads * dim;
  const auto segments = static_cast<int64_t>(args.segments.size());
  const bool shared = ctx.threads == 1 || segments * args.kv_heads >= 16;
  float *dk = copies.row<float>(0), *dv = dk + args.k.rows() * width;
  const auto task = HWY_DYNAMIC_DISPATCH(attention_task);
  const int64_t owners = shared ? args.kv_heads : args.heads, owned = shared ? group : 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads)
  for (int64_t t = 0; t < segments * owners; ++t) {
    const AttentionSegment& s = args.segments[static_cast<size_t>(t / owners)];
    const int64_t owner = t % owners;
    const KeySums into =
        shared ? KeySums{args.dk.row<float>(s.k_begin) + owner * dim, args.dv.row<float>(s.k_begin) + owner * dim,
                         args.dk.row_stride(), args.dv.row_stride()}
               : KeySums{dk + s.k_begin * width + owner * dim, dv + s.k_begin * width + owner * dim, width, width};
    task(args, s, owner * owned, (owner + 1) * owned, into, scratch.row<float>(omp_get_thread_num()));
  }
  if (shared) return;
  const auto join = [&](const float* from, float* to) {
    std::copy_n(from, dim, to);
    for (int64_t h = 1; h < group; ++h)
      for (int64_t c = 0; c < dim; ++c) to[c] += from[h * dim + c];
  };
#pragma omp parallel for schedule(static) num_threads(ctx.threads)
  for (int64_t key = 0; key < args.k.rows(); ++key)
    for (int64_t h = 0; h < args.kv_heads; ++h) {
      join(dk + key * width + h * group * dim, args.dk.row<float>(key) + h * dim);
      join(dv + key * width + h * group * dim, args.dv.row<float>(key) + h * dim);
    }
}

/// A form of a kernel, and where its result is, so that it can be seen to compute the same.
struct Form {
  std::string_view name;
  std::function<void()> work;
};

class Comparison {
 public:
  Comparison(const Context& ctx, double seconds) : ctx_(ctx), seconds_(seconds) {}

  /// The kernel and the forms in turn; the fastest form is printed. prepare: sets the operands to what they were.
  /// @throws UserError when a form's result is not the kernel's
  void run(
      std::string_view name, double giga, std::string_view unit, TensorView result, Form kernel,
      std::vector<Form> forms, const std::function<void()>& prepare = [] {}) const {
    check(name, result, kernel, forms, prepare);
    constexpr int kTurns = 5;
    std::vector<std::vector<double>> wall(forms.size() + 1), processor(forms.size() + 1);
    forms.insert(forms.begin(), std::move(kernel));
    for (int turn = 0; turn < kTurns; ++turn)
      for (size_t i = 0; i < forms.size(); ++i) {
        const bench::Timing t = bench::measure(forms[i].work, seconds_ / kTurns);
        wall[i].push_back(t.median);
        processor[i].push_back(t.processor);
      }
    size_t best = 1;
    for (size_t i = 2; i < forms.size(); ++i)
      if (middle(wall[i]) < middle(wall[best])) best = i;
    fmt::print(R"({{"bench": "one_order", "case": "{}", "threads": {}, "target": "{}", "unit": "{}", "rate": {:.3f}, )"
               R"("processor_rate": {:.3f}, "free_form": "{}", "free_rate": {:.3f}, "free_processor_rate": {:.3f}}})"
               "\n",
               name, ctx_.threads, cpu_target(), unit, giga / middle(wall[0]), giga / middle(processor[0]),
               forms[best].name, giga / middle(wall[best]), giga / middle(processor[best]));
    std::fflush(stdout);
  }

 private:
  static double middle(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }

  /// What computes something else is no yardstick.
  static void check(std::string_view name, TensorView result, const Form& kernel, const std::vector<Form>& forms,
                    const std::function<void()>& prepare) {
    const auto run = [&](const Form& form) {
      prepare();
      form.work();
      const auto* data = result.row<float>(0);
      return std::vector<float>(data, data + result.shape.count());
    };
    const std::vector<float> expected = run(kernel);
    for (const Form& form : forms) {
      const std::vector<float> found = run(form);
      double difference = 0, size = 0;
      for (size_t i = 0; i < found.size(); ++i) {
        difference += std::pow(found[i] - expected[i], 2);
        size += std::pow(expected[i], 2);
      }
      if (!(difference <= 1e-8 * size))
        throw UserError("", fmt::format("{}: \"{}\" has another result than the kernel", name, form.name),
                        "tests/bench/free_order_bench.cpp");
    }
  }

  const Context& ctx_;
  double seconds_;
};

constexpr int64_t kTokens = 512, kHidden = 576, kMlp = 1536;

/// Products whose weights are those of many layers, read once a pass, so that they come from memory; or of one matrix.
void run_thin(const Context& ctx, const Comparison& compare, int64_t m, int64_t n, int64_t k, DType dtype,
              const Tensor& memory, int64_t layers) {
  const Tensor x = bench::random_tensor({m, k}, 1), y(Shape{m, n}, DType::f32);
  const auto* weights = static_cast<const std::byte*>(memory.view().data);
  const int64_t bytes = n * k * size_of(dtype);
  const auto each_layer = [&](auto&& product) {
    for (int64_t layer = 0; layer < layers; ++layer)
      product(GemmArgs{.a = x.view(),
                       .b = ConstView(weights + layer * bytes, {n, k}, dtype),
                       .b_transpose = Transpose::yes,
                       .c = y.view()});
  };
  std::vector<Form> forms{
      {"sums along lanes, tiles", [&] { each_layer([&](const GemmArgs& g) { thin_product(ctx, g, false); }); }}};
  if (m == 1)
    forms.push_back(
        {"sums along lanes, streams", [&] { each_layer([&](const GemmArgs& g) { thin_product(ctx, g, true); }); }});
  const std::string where = layers > 1 ? "from memory" : "cached";
  const std::string name = fmt::format("product {} M={} N={} K={} b={}", where, m, n, k, name_of(dtype));
  const double giga = 1e-9 * static_cast<double>(layers > 1 ? layers * bytes : 2 * m * n * k);
  compare.run(name, giga, layers > 1 ? "GB/s" : "GFLOP/s", y.view(),
              {"", [&] { each_layer([&](const GemmArgs& g) { gemm(ctx, g); }); }}, std::move(forms));
}

void run_thin_products(const Context& ctx, const Comparison& compare) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  const Tensor memory(Shape{kBytes / 4}, DType::f32);
  for (float& x : memory.as<float>()) x = 0x1.010p-8f;  // finite in every type
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const int64_t layers = kBytes / (kMlp * kHidden * size_of(dtype));
    for (const int64_t rows : {1, 2, 4, 8, 12}) run_thin(ctx, compare, rows, kMlp, kHidden, dtype, memory, layers);
    run_thin(ctx, compare, 1, kHidden, kMlp, dtype, memory, layers);
    run_thin(ctx, compare, 1, kMlp, kHidden, dtype, memory, 1);
  }
  const Tensor drawn = bench::random_tensor({8, kMlp}, 9);
  run_thin(ctx, compare, kTokens, 8, kHidden, DType::f32, drawn, 1);  // LoRA's first product
  run_thin(ctx, compare, kTokens, 8, kMlp, DType::f32, drawn, 1);
}

/// The other of the two orders.
void run_orders(const Context& ctx, const Comparison& compare, std::string_view what, const GemmArgs& args) {
  GemmArgs other = args;
  other.sum = args.sum == Sum::chain ? Sum::blocks : Sum::chain;
  const int64_t k = args.a.shape[args.a_transpose == Transpose::yes ? 0 : 1];
  compare.run(fmt::format("product {} M={} N={} K={}", what, args.c.rows(), args.c.cols(), k),
              2e-9 * static_cast<double>(args.c.rows() * args.c.cols() * k), "GFLOP/s", args.c,
              {"", [&] { gemm(ctx, args); }},
              {{args.sum == Sum::chain ? "blocks of 384" : "one chain", [&] { gemm(ctx, other); }}},
              [&] { std::fill_n(args.c.row<float>(0), args.c.shape.count(), 1.0f); });
}

void run_packed_products(const Context& ctx, const Comparison& compare) {
  const Tensor x = bench::random_tensor({kTokens, kMlp}, 1), dy = bench::random_tensor({kTokens, kHidden}, 2),
               w = bench::random_tensor({kHidden, kMlp}, 3), y({kTokens, kHidden}, DType::f32),
               dw({kHidden, kMlp}, DType::f32), db({8, kMlp}, DType::f32), du = bench::random_tensor({kTokens, 8}, 4);
  run_orders(ctx, compare, "forward", {.a = x.view(), .b = w.view(), .b_transpose = Transpose::yes, .c = y.view()});
  run_orders(
      ctx, compare, "weight gradient",
      {.a = dy.view(), .a_transpose = Transpose::yes, .b = x.view(), .c = dw.view(), .beta = 1, .sum = Sum::chain});
  run_orders(
      ctx, compare, "LoRA gradient",
      {.a = du.view(), .a_transpose = Transpose::yes, .b = x.view(), .c = db.view(), .beta = 1, .sum = Sum::chain});
}

void run_norms(const Context& ctx, const Comparison& compare) {
  const Tensor x = bench::random_tensor({kTokens, kHidden}, 1), dy = bench::random_tensor({kTokens, kHidden}, 2),
               weight = bench::random_tensor({kHidden}, 3), y({kTokens, kHidden}, DType::f32),
               inv({kTokens}, DType::f32), dx({kTokens, kHidden}, DType::f32), dweight({kHidden}, DType::f32),
               partial({kTokens / 64, kHidden}, DType::f32);
  const double giga = 1e-9 * static_cast<double>(x.view().bytes());
  compare.run("norm 512 x 576", 2 * giga, "GB/s", y.view(),
              {"", [&] { rms_norm(ctx, x.view(), weight.view(), 1e-5, y, inv); }},
              {{"four sums", [&] { norm(ctx, x.view(), weight.view(), y, inv); }}});
  const auto clear = [&] {
    std::ranges::fill(dx.as<float>(), 0.0f);
    std::ranges::fill(dweight.as<float>(), 0.0f);
  };
  for (const bool trains : {false, true}) {
    const TensorView into = trains ? dweight.view() : TensorView();
    const auto backward = [&] { rms_norm_backward(ctx, x.view(), weight.view(), inv.view(), dy.view(), dx, into); };
    const auto free = [&] { norm_backward(ctx, x.view(), weight.view(), inv.view(), dy.view(), dx, into, partial); };
    compare.run(trains ? "norm backward, trained weight, 512 x 576" : "norm backward 512 x 576", 4 * giga, "GB/s",
                trains ? dweight.view() : dx.view(), {"", backward}, {{"one pass, blocks of 64 rows", free}}, clear);
  }
}

void run_softmax(const Context& ctx, const Comparison& compare) {
  const Tensor drawn = bench::random_tensor({kTokens, kChunkColumns}, 1), logits(drawn.shape(), DType::f32);
  const Tensor max({kTokens}, DType::f32), sum({kTokens}, DType::f32), target({kTokens}, DType::f32),
      rescale({kTokens}, DType::f32);
  const std::vector<int32_t> labels(kTokens, 7);
  std::vector<int32_t> best(kTokens, 0);
  const SoftmaxChunkArgs args{
      .logits = logits, .vocab_begin = 0, .labels = labels, .rows = {max, sum, target, rescale, best}};
  const auto prepare = [&] {
    std::ranges::copy(drawn.as<float>(), logits.as<float>().begin());
    std::ranges::fill(max.as<float>(), 0.0f);
    std::ranges::fill(sum.as<float>(), 0.0f);
  };
  // The values decay over the calls, which costs the same.
  compare.run("softmax of a chunk, 512 x 3072", 2e-9 * static_cast<double>(logits.view().bytes()), "GB/s", sum.view(),
              {"", [&] { ctx.kernels.softmax_chunk(ctx, args); }},
              {{"two sums", [&] { softmax(ctx, logits, max, sum); }}}, prepare);
}

void run_squares(const Context& ctx, const Comparison& compare) {
  const Tensor x = bench::random_tensor({int64_t{1} << 22}, 1), sum({1}, DType::f64), shown({1}, DType::f32);
  const auto show = [&](double value) { shown.as<float>()[0] = static_cast<float>(value); };
  compare.run("sum of squares of 4 M, f64", 1e-9 * static_cast<double>(x.view().bytes()), "GB/s", shown.view(),
              {"", [&] { sum_of_squares(ctx, x.view(), sum), show(sum.as<double>()[0]); }},
              {{"four sums a thread", [&] { show(squares(ctx, x.as<float>())); }}});
}

void run_attention(const Context& ctx, const Comparison& compare, int64_t documents, int64_t length, int64_t heads,
                   int64_t kv_heads, int64_t dim) {
  const int64_t tokens = documents * length, width = heads * dim, kv_width = kv_heads * dim;
  std::vector<AttentionSegment> segments;
  for (int64_t t = 0; t < tokens; t += length) segments.push_back({t, t + length, t, t + length});
  const Tensor q = bench::random_tensor({tokens, width}, 1), k = bench::random_tensor({tokens, kv_width}, 2),
               v = bench::random_tensor({tokens, kv_width}, 3), dout = bench::random_tensor({tokens, width}, 4);
  const Tensor out({tokens, width}, DType::f32), lse({tokens, heads}, DType::f32), dq({tokens, width}, DType::f32),
      dk({tokens, kv_width}, DType::f32), dv({tokens, kv_width}, DType::f32), copies({2 * tokens, width}, DType::f32),
      scratch({ctx.threads, attention_floats(dim)}, DType::f32);
  attention(ctx, {.q = q.view(),
                  .k = k.view(),
                  .v = v.view(),
                  .out = out.view(),
                  .lse = lse.view(),
                  .heads = heads,
                  .kv_heads = kv_heads,
                  .head_dim = dim,
                  .scale = 0.125,
                  .segments = segments});
  const AttentionBackwardArgs args{.q = q.view(),
                                   .k = k.view(),
                                   .v = v.view(),
                                   .out = out.view(),
                                   .lse = lse.view(),
                                   .dout = dout.view(),
                                   .dq = dq.view(),
                                   .dk = dk.view(),
                                   .dv = dv.view(),
                                   .heads = heads,
                                   .kv_heads = kv_heads,
                                   .head_dim = dim,
                                   .scale = 0.125,
                                   .segments = segments};
  compare.run(fmt::format("attention backward {} x {} heads={}/{} d={}", documents, length, heads, kv_heads, dim),
              2.5e-9 * static_cast<double>(tokens * 2 * length * width), "GFLOP/s", dk.view(),
              {"", [&] { tessera::attention_backward(ctx, args); }},
              {{"heads share sums", [&] { attention_backward(ctx, args, copies, scratch); }}});
}

}  // namespace
}  // namespace tessera::free_order

int main(int argc, char** argv) {
  using namespace tessera;
  shorten_thread_spinning(argv);  // as trainer
  if (argc > 2) use_cpu_target(argv[2]);
  Arena scratch(64 << 20);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, "cpu"),
                    .scratch = scratch,
                    .threads = bench::threads_from(argc, argv)};
  const free_order::Comparison compare(ctx, argc > 3 ? std::atof(argv[3]) : 0.5);
  free_order::run_thin_products(ctx, compare);
  free_order::run_packed_products(ctx, compare);
  free_order::run_norms(ctx, compare);
  free_order::run_softmax(ctx, compare);
  free_order::run_squares(ctx, compare);
  free_order::run_attention(ctx, compare, 1, 512, 9, 3, 64);
  free_order::run_attention(ctx, compare, 1, 2048, 9, 3, 64);
  free_order::run_attention(ctx, compare, 16, 30, 4, 2, 32);
}
#endif
