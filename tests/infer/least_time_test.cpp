#include "infer/least_time.h"

#include <gtest/gtest.h>

#include "infer/batches.h"
#include "kernels/product_rate.h"
#include "kernels/read_rate.h"

namespace tessera {
namespace {

using namespace test;

/// Everything counted row by row.
struct Counted {
  double flop = 0;
  int64_t rows = 0, longest = 0, longest_tail = 0;
};
Counted count(Model& model, const std::vector<Request>& requests, const std::vector<RequestResult>& results,
              const BatchPlan& plan, int64_t step_tokens) {
  double linears = 0, head = 0;
  for (const WeightSpec& spec : model.decoder().specs()) {
    if (spec.role == Role::linear) linears += 2.0 * static_cast<double>(spec.shape.count());
    if (spec.role == Role::head) head += 2.0 * static_cast<double>(spec.shape.count());
  }
  Counted counted;
  const auto row = [&](int64_t keys) {
    counted.flop +=
        linears + 4.0 * static_cast<double>(keys * model.config().query_width() * model.decoder().num_layers());
    ++counted.rows;
  };
  for (const PrefixTree::Node& node : plan.tree.nodes)
    for (int64_t position = node.begin; position < node.end; ++position) row(position + 1);
  for (size_t i = 0; i < requests.size(); ++i) {
    const int64_t prompt = std::ssize(requests[i].prompt);
    for (const Output& output : results[i].outputs) {
      for (int64_t t = 0; t + 1 < std::ssize(output.ids); ++t) row(prompt + t + 1);
      counted.flop += head * static_cast<double>(output.ids.size());
      counted.longest_tail = std::max(counted.longest_tail, std::ssize(output.ids));
      counted.longest =
          std::max(counted.longest, (prompt + step_tokens - 1) / step_tokens + std::ssize(output.ids) - 1);
    }
  }
  return counted;
}

TEST(LeastTime, IsThatOfTheRowsThatHadToBeComputed) {
  const auto model = load_model(golden("gqa"), 1024);
  std::vector<Request> requests;
  const auto header = ids_of(90, 3);
  for (int64_t i = 0; i < 6; ++i) requests.push_back(greedy(joined(header, ids_of(2 + i, 9 * i)), 5 + 3 * i));
  requests.push_back(greedy(ids_of(200, 5), 1));
  Batch batch;
  batch.options.step_tokens = 64;
  const BatchPlan plan = plan_of(*model, requests, batch);
  const Answered got = answer(*model, requests, batch);
  LeastTime least(*model, 64);
  for (size_t i = 0; i < requests.size(); ++i) least.add(requests[i], got.results[i]);
  const Counted want = count(*model, requests, got.results, plan, 64);
  EXPECT_EQ(least.seconds(plan, got.counts, {}), 0) << "rates are not known";
  EXPECT_NEAR(least.seconds(plan, got.counts, {2e9, 1e30}), want.flop / 2e9, 1e-9 * want.flop / 2e9);

  // By bytes: every pass reads the linears, and those that choose tokens of the longest continuation read the head.
  double linears = 0, head = 0;
  for (const WeightSpec& spec : model->decoder().specs()) {
    if (spec.role == Role::linear) linears += 4.0 * static_cast<double>(spec.shape.count());
    if (spec.role == Role::head) head += 4.0 * static_cast<double>(spec.shape.count());
  }
  const int64_t passes = std::max(want.longest, (want.rows + 63) / 64);
  EXPECT_LE(passes, got.counts.schedule.steps) << "no schedule has fewer";
  const double bytes = static_cast<double>(passes) * linears + static_cast<double>(want.longest_tail) * head +
                       static_cast<double>(got.counts.kv_bytes_read);
  EXPECT_NEAR(least.seconds(plan, got.counts, {1e30, 1e9}), bytes / 1e9, 1e-9 * bytes / 1e9);
}

// No batch is faster than what its machine does at best, and this one is not expected to take longer than it does.
TEST(LeastTime, IsBelowTheTimeThatABatchTakes) {
  const auto model = load_model(golden("gqa"), 1024);
  std::vector<Request> requests;
  for (int64_t i = 0; i < 8; ++i) requests.push_back(greedy(ids_of(300, 7 * i), 8));
  const Batch batch;
  const BatchPlan plan = plan_of(*model, requests, batch);
  const Context& ctx = roomy_engine().ctx;
  const MachineRates rates{limit_rate(ctx, 0.02), read_rate(ctx, 0.02)};
  EXPECT_GT(rates.bytes, 1e8);
  LeastTime least(*model, batch.options.step_tokens);
  const double expected = least.expected_seconds(plan, rates);
  const auto begin = std::chrono::steady_clock::now();
  const Answered got = answer(*model, requests, batch);
  const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  for (size_t i = 0; i < requests.size(); ++i) least.add(requests[i], got.results[i]);
  const double optimum = least.seconds(plan, got.counts, rates);
  EXPECT_GT(optimum, 0);
  EXPECT_LT(optimum, taken);
  EXPECT_LT(expected, 2 * optimum);
  EXPECT_GT(expected, optimum / 4);
}

}  // namespace
}  // namespace tessera
