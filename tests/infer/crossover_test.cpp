// From where on keys are attended to jointly: the fit, the measurement, and answers that hang on neither.
#include "infer/crossover.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/batches.h"
#include "infer/crossover_trial.h"
#include "kernels/compute.h"

namespace tessera {
namespace {

using namespace test;

constexpr int64_t kNever = Crossover::kNever;

TEST(Crossover, TakesTheLowerNumberOfRowsBetweenTwo) {
  const Crossover crossover({{2, 300}, {4, 100}, {8, 0}});
  EXPECT_FALSE(crossover.pays(2, 299));
  EXPECT_TRUE(crossover.pays(2, 300));
  EXPECT_FALSE(crossover.pays(3, 299));
  EXPECT_TRUE(crossover.pays(4, 100));
  EXPECT_FALSE(crossover.pays(7, 99));
  EXPECT_TRUE(crossover.pays(8, 1));
  EXPECT_TRUE(crossover.pays(5000, 1));
  EXPECT_FALSE(crossover.pays(1, 299));
  EXPECT_TRUE(Crossover::always().pays(2, 1));
  EXPECT_FALSE(Crossover::never().pays(100000, kNever));
}

/// Seconds of a machine: c0 + c1 · items + max(bytes / BW, FLOP / rate), in units of a key.
double modelled(double start, double items, double item, double read, double products) {
  return start + item * items + std::max(read, products);
}

TEST(Crossover, FindsWhereTheTimesOfAMachineMeet) {
  std::vector<TimedVisit> visits;
  for (const int64_t rows : {2, 4, 32})
    for (const int64_t keys : {64, 128, 256, 512, 1024}) {
      const auto r = static_cast<double>(rows), n = static_cast<double>(keys);
      // The joint form takes longer to start, and reads its keys once.
      visits.push_back({rows, keys, modelled(700, 1, 30, 2.0 * n, 0.3 * r * n), modelled(0, r, 30, 2.0 * r * n, n)});
    }
  // 730 + 2 n <= 60 + 4 n;  730 + 2 n <= 120 + 8 n;  730 + 9.6 n <= 960 + 64 n
  EXPECT_THAT(fit_crossover(visits).points(),
              testing::ElementsAre(Crossover::Point{2, 335}, Crossover::Point{4, 102}, Crossover::Point{32, 0}));
}

TEST(Crossover, NeverTakesAFormThatStaysSlower) {
  const std::vector<TimedVisit> visits = {{2, 64, 70, 60}, {2, 128, 140, 120}, {2, 512, 560, 480}, {8, 64, 100, 1000}};
  // One number of keys is no line.
  EXPECT_THAT(fit_crossover(visits).points(), testing::ElementsAre(Crossover::Point{2, kNever}));
  EXPECT_TRUE(fit_crossover({}).points().empty());
}

TEST(Crossover, IsNotMovedMuchByATimeThatIsFarOff) {
  std::vector<TimedVisit> visits;
  for (const int64_t keys : {64, 128, 256, 512, 1024}) {
    const auto n = static_cast<double>(keys);
    visits.push_back({2, keys, 400 + n, 2 * n});
  }
  visits[2].joint *= 1.1, visits[4].alone *= 0.95;
  const int64_t at = fit_crossover(visits).points().front().prefix;
  EXPECT_GT(at, 300);
  EXPECT_LT(at, 600);
}

TEST(Crossover, IsMeasuredOnceAProcessInShortTime) {
  Compute compute({.device = {}, .backend = "cpu", .threads = 2}, 1 << 20);
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::i8}) {
    const AttentionTrial trial{.heads = 4, .kv_heads = 2, .head_dim = 24, .page_tokens = 12, .kv_dtype = type};
    const Crossover& crossover = measured_crossover(compute, trial);
    EXPECT_EQ(&measured_crossover(compute, trial), &crossover);
    EXPECT_LE(crossover.points().size(), std::size(kTrialRows));
    for (size_t i = 0; i < crossover.points().size(); ++i) EXPECT_EQ(crossover.points()[i].rows, kTrialRows[i]);
  }
  const Context& ctx = compute;
  EXPECT_EQ(ctx.scratch.used_bytes(), 0);
}

TEST(Crossover, LeavesOutWhatWouldTakeTooLong) {
  Compute compute({.device = {}, .backend = "reference", .threads = 1}, 1 << 20);
  const AttentionTrial trial{.heads = 8, .kv_heads = 1, .head_dim = 64, .page_tokens = 16, .kv_dtype = DType::f32};
  const std::vector<TimedVisit> visits = time_visits(compute, trial, 0.2);
  EXPECT_LT(visits.size(), std::size(kTrialRows) * std::size(kTrialKeys));
  for (const TimedVisit& v : visits) {
    EXPECT_GT(v.joint, 0);
    EXPECT_GT(v.alone, 0);
  }
}

/// Prefixes that end within a block of 128 positions, at its end and behind it, below one another, and across a span.
std::vector<Request> shared_batch() {
  std::vector<Request> requests;
  const auto header = ids_of(127, 3), second = joined(header, ids_of(130, 40)), third = joined(second, ids_of(780, 9));
  for (int64_t i = 0; i < 3; ++i) requests.push_back(greedy(joined(header, ids_of(1 + 5 * i, 11 * i)), 4));
  for (int64_t i = 0; i < 5; ++i) requests.push_back(greedy(joined(second, ids_of(2 + i, 60 + i)), 4));
  for (int64_t i = 0; i < 2; ++i) requests.push_back(greedy(joined(third, ids_of(1 + i, 20 + i)), 4));
  return requests;
}

TEST(Crossover, DoesNotChangeABitOfAnAnswer) {
  const auto model = load_model(golden("gqa"), 1200);
  const std::vector<Request> requests = shared_batch();
  const std::vector<Output> want = alone(*model, requests);
  const Crossover forced = Crossover::always(), forbidden = Crossover::never(),
                  by_size({{2, kNever}, {5, 128}, {8, 0}});
  const std::vector<const Crossover*> forms = {&forced, &forbidden, &by_size, nullptr};
  for (size_t form = 0; form < forms.size(); ++form)
    for (const int64_t step : {17, 256})
      for (const int threads : {1, 2}) {
        Batch batch;
        batch.options = {.step_tokens = step, .crossover = forms[form]};
        batch.threads = threads;
        expect_outputs(answer(*model, requests, batch), want,
                       fmt::format("form {}, steps of {}, {} threads", form, step, threads));
      }
}

TEST(Crossover, AnswersTheSameTokensWithoutDeterminism) {
  const auto model = load_model(golden("gqa"), 1200);
  const std::vector<Request> requests = shared_batch();
  const Crossover forced = Crossover::always(), forbidden = Crossover::never();
  Batch batch;
  batch.options = {.deterministic = false, .crossover = &forced};
  const Answered joint = answer(*model, requests, batch);
  batch.options.crossover = &forbidden;
  const Answered apart = answer(*model, requests, batch);
  for (size_t i = 0; i < requests.size(); ++i)
    expect_same(apart.results[i].outputs[0], joint.results[i].outputs[0], "");
}

// Keys of 256 positions below which there are six rows: read once a step, or six times. Computed tokens and pages are
// the same.
TEST(Crossover, SharesTokensAndPagesInEitherForm) {
  const auto model = load_model(golden("gqa"), 1024);
  const ModelConfig& c = model->config();
  const int64_t kappa = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * 4;
  constexpr int64_t kPrefix = 256, kRequests = 6;
  const auto counts_of = [&](const Crossover& crossover, int64_t new_tokens) {
    std::vector<Request> requests;
    for (int64_t i = 0; i < kRequests; ++i)
      requests.push_back(greedy(joined(ids_of(kPrefix, 3), ids_of(3, 20 + i)), new_tokens, -1));
    Batch batch;
    batch.options = {.step_tokens = 1024, .crossover = &crossover};
    return answer(*model, requests, batch).counts;
  };
  const auto read = [&](const Crossover& crossover) {
    return counts_of(crossover, 3).kv_bytes_read - counts_of(crossover, 2).kv_bytes_read;
  };
  const int64_t own = kRequests * (3 + 2);  // a step's tails
  EXPECT_EQ(read(Crossover::always()), kappa * (kPrefix + own));
  EXPECT_EQ(read(Crossover::never()), kappa * (kRequests * kPrefix + own));
  EXPECT_EQ(read(Crossover({{2, kNever}, {6, 256}})), kappa * (kPrefix + own));
  EXPECT_EQ(read(Crossover({{2, 0}, {6, 257}})), kappa * (kRequests * kPrefix + own));
  const EngineCounts joint = counts_of(Crossover::always(), 3), apart = counts_of(Crossover::never(), 3);
  EXPECT_EQ(joint.schedule.computed, apart.schedule.computed);
  EXPECT_EQ(joint.pages_peak, apart.pages_peak);
}

TEST(Crossover, IsMeasuredWhereRowsCanShareKeysAlone) {
  const auto model = load_model(golden("gqa"), 256);
  EXPECT_EQ(answer(*model, {greedy(ids_of(40, 1), 2), greedy(ids_of(40, 2), 2)}).counts.crossover[0].rows, 0);
  const auto header = ids_of(40, 3);
  const std::vector<Request> sharing = {greedy(joined(header, {1}), 2), greedy(joined(header, {2}), 2)};
  EXPECT_GT(answer(*model, sharing).counts.crossover[0].rows, 0);
  Request samples = greedy(header, 2);
  samples.n = samples.best_of = 2;
  EXPECT_GT(answer(*model, {samples}).counts.crossover[0].rows, 0);
}

}  // namespace
}  // namespace tessera
