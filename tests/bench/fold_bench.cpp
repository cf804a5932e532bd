// fold_bench [threads] [rounds] [compression]: the linear layers of a SmolLM2-135M-shaped model (30 layers, 106 M
// weights) whose weights are folded into one pool, at several compressions.
//
//   step      what a training step pays: expand, expand again, contract,
//             over the three products of a layer at 512 tokens
//   products  fold_gemm against expand + gemm and against gemm over stored weights, which come from memory: all of the
//             model's matrices are gone through before one is met again
//
// Ratios are taken round by round, of times that lie side by side; the median is printed.

#include <functional>

#include "bench/harness.h"
#include "core/error.h"
#include "kernels/fold.h"
#include "kernels/gemm.h"
#include "kernels/table.h"

namespace tessera::bench {
namespace {

constexpr int64_t kLayers = 30, kTokens = 512;
constexpr Transpose kYes = Transpose::yes, kNo = Transpose::no;

struct Linear {
  std::string_view name;
  int64_t rows, cols;
};
constexpr Linear kLinears[] = {{"q", 576, 576},     {"k", 192, 576},   {"v", 192, 576},    {"o", 576, 576},
                               {"gate", 1536, 576}, {"up", 1536, 576}, {"down", 576, 1536}};

int64_t layer_weights() {
  int64_t count = 0;
  for (const Linear& l : kLinears) count += l.rows * l.cols;
  return count;
}

/// The pool of a model and the matrices that read it, layer by layer.
struct Model {
  Tensor pool;
  FoldFactor factor;
  std::vector<FoldedMatrix> matrices;
  Model(double compression, int64_t tile)
      : pool(random_tensor({static_cast<int64_t>(static_cast<double>(kLayers * layer_weights()) / compression)}, 1)),
        factor{pool.shape()[0], 0.5} {
    const FoldHash hash(7, pool.shape()[0]);
    int64_t begin = 0;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (const Linear& l : kLinears) {
        const FoldLayout layout = tile > 1 ? FoldLayout{l.rows, l.cols, tile, tile} : FoldLayout{l.rows, l.cols};
        matrices.push_back({.hash = hash, .begin = begin, .layout = layout, .factors = {&factor, 1}});
        begin += l.rows * l.cols;
      }
    }
  }
  Model(const Model&) = delete;
};

double seconds_of(const std::function<void()>& work) {
  const double begin = seconds_now();
  work();
  return seconds_now() - begin;
}

/// Times of several things, round by round.
class Rounds {
 public:
  explicit Rounds(std::vector<std::string> names) : names_(std::move(names)), times_(names_.size()) {}
  void add(size_t which, double seconds) { times_[which].push_back(seconds); }
  void print(std::string_view what, int threads, double giga, std::string_view unit) const {
    for (size_t i = 0; i < names_.size(); ++i)
      report("fold", fmt::format("{} {}", what, names_[i]), threads, timing_of(times_[i]), giga, unit);
  }
  /// {"bench", "case", "threads", "ratio"}: the median over rounds of Σ of some over Σ of others.
  void print_ratio(std::string_view what, int threads, const std::vector<size_t>& above,
                   const std::vector<size_t>& below) const {
    std::vector<double> ratios;
    for (size_t r = 0; r < times_[0].size(); ++r) {
      const auto sum = [&](const std::vector<size_t>& some) {
        double total = 0;
        for (const size_t i : some) total += times_[i][r];
        return total;
      };
      ratios.push_back(sum(above) / sum(below));
    }
    const Timing t = timing_of(ratios);
    fmt::print(R"({{"bench": "fold", "case": "{}", "threads": {}, "ratio": {:.4f}, "spread": {:.4f}, "rounds": {}}})"
               "\n",
               what, threads, t.median, t.spread, t.samples);
  }

 private:
  std::vector<std::string> names_;
  std::vector<std::vector<double>> times_;
};

/// A layer's matrices, as one round: layers take turns, from the last, whose weights have signs, on.
void run_step(const Context& ctx, const Model& model, const std::string& name, int rounds) {
  const Tensor in = random_tensor({kTokens * 1536}, 2), out = random_tensor({kTokens * 1536}, 3),
               w({1536 * 576}, DType::f32), dw({1536 * 576}, DType::f32), dpool(model.pool.shape(), DType::f32),
               din({kTokens * 1536}, DType::f32);
  const auto part = [](const Tensor& t, int64_t rows, int64_t cols) {
    return TensorView(t.view().mutable_data(), {rows, cols}, DType::f32);
  };
  Rounds times({"expand", "expand again", "contract", "products"});
  for (int round = -1; round < rounds; ++round) {
    double seconds[4] = {};
    for (size_t i = 0; i < std::size(kLinears); ++i) {
      const size_t layer = static_cast<size_t>(kLayers - 1 - (round + 1) % kLayers);
      const FoldedMatrix& matrix = model.matrices[layer * std::size(kLinears) + i];
      const auto [_, rows, cols] = kLinears[i];
      const TensorView x = part(in, kTokens, cols), y = part(out, kTokens, rows), weights = part(w, rows, cols),
                       gradient = part(dw, rows, cols), dx = part(din, kTokens, cols);
      seconds[0] += seconds_of([&] { fold_expand(ctx, matrix, model.pool, 0, weights); });
      seconds[3] += seconds_of([&] { gemm(ctx, {.a = x, .b = weights, .b_transpose = kYes, .c = y}); });
      seconds[1] += seconds_of([&] { fold_expand(ctx, matrix, model.pool, 0, weights); });
      seconds[3] += seconds_of([&] {
        gemm(ctx, {.a = y, .a_transpose = kYes, .b = x, .c = gradient});
        gemm(ctx, {.a = y, .b = weights, .b_transpose = kNo, .c = dx});
      });
      seconds[2] += seconds_of([&] { fold_contract(ctx, matrix, gradient, dpool); });
    }
    for (size_t i = 0; i < 4 && round >= 0; ++i) times.add(i, seconds[i]);
  }
  const std::string what = "step " + name;
  times.print(what, ctx.threads, 1e-9 * static_cast<double>(layer_weights()), "Gweights/s");
  times.print_ratio(what + " (expand + expand + contract) / products", ctx.threads, {0, 1, 2}, {3});
}

/// Products of `tokens` rows; a round goes through all layers, or through some in turn where that takes long.
void run_products(const Context& ctx, const Model& model, const Tensor& dense, const std::string& name, int64_t tokens,
                  int rounds) {
  const int64_t layers = tokens < 64 ? kLayers : 3;
  const Tensor in = random_tensor({tokens * 1536}, 2), out({tokens * 1536}, DType::f32), w({1536 * 576}, DType::f32);
  Rounds times({"fold_gemm", "expand + gemm", "stored gemm"});
  for (int round = -1; round < rounds; ++round) {
    for (int which = 0; which < 3; ++which) {
      const double seconds = seconds_of([&] {
        for (int64_t l = 0; l < layers; ++l) {
          for (size_t i = 0; i < std::size(kLinears); ++i) {
            const int64_t layer = ((round + 1) * layers + l) % kLayers;
            const FoldedMatrix& matrix = model.matrices[static_cast<size_t>(layer) * std::size(kLinears) + i];
            const auto [_, rows, cols] = kLinears[i];
            const TensorView x(in.view().mutable_data(), {tokens, cols}, DType::f32);
            const TensorView y(out.view().mutable_data(), {tokens, rows}, DType::f32);
            if (which == 0) {
              fold_gemm(ctx, matrix, model.pool, x, 0, y);
              continue;
            }
            const TensorView weights(which == 1 ? w.view().mutable_data() : dense.as<float>().data() + matrix.begin,
                                     {rows, cols}, DType::f32);
            if (which == 1) fold_expand(ctx, matrix, model.pool, 0, weights);
            gemm(ctx, {.a = x, .b = weights, .b_transpose = kYes, .c = y});
          }
        }
      });
      if (round >= 0) times.add(static_cast<size_t>(which), seconds);
    }
  }
  const std::string what = fmt::format("products {} T={}", name, tokens);
  times.print(what, ctx.threads, 2e-9 * static_cast<double>(tokens * layers * layer_weights()), "GFLOP/s");
  times.print_ratio(what + " fold_gemm / (expand + gemm)", ctx.threads, {0}, {1});
  times.print_ratio(what + " fold_gemm / stored gemm", ctx.threads, {0}, {2});
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  Arena scratch(64 << 20);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}),
                    .scratch = scratch,
                    .threads = bench::threads_from(argc, argv)};
  const int rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 9;
  const Tensor dense = bench::random_tensor({bench::kLayers * bench::layer_weights()}, 4);
  for (const double compression : {1.01, 2.0, 10.0, 100.0}) {
    if (argc > 3 && std::atof(argv[3]) != compression) continue;
    for (const int64_t tile : {1, 32}) {
      const bench::Model model(compression, tile);
      const std::string name = fmt::format("{}x {}", compression, tile > 1 ? "tiles" : "rows");
      bench::run_step(ctx, model, name, rounds);
      if (compression != 10 || tile > 1) continue;
      for (const int64_t tokens : {1, 8, 64, 512}) bench::run_products(ctx, model, dense, name, tokens, rounds);
    }
  }
}
