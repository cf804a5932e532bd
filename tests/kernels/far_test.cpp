// The far device: kernels of the CPU on memory that the host cannot read.
#include <gtest/gtest.h>

#include <cmath>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/random.h"
#include "kernels/attention.h"
#include "kernels/calibration.h"
#include "kernels/columns.h"
#include "kernels/compute.h"
#include "kernels/cross_entropy.h"
#include "kernels/distillation.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/table.h"
#include "kernels/tail_loss.h"
#include "kernels/upload.h"
#include "kernels/votes.h"

namespace tessera {
namespace {

const Device kFar = device_of("far");

Tensor random(Shape shape, uint64_t seed) {
  Tensor tensor(shape, DType::f32);
  const RandomStream stream(seed, 1);
  for (int64_t i = 0; i < shape.count(); ++i) tensor.as<float>()[i] = static_cast<float>(stream.normal(i));
  return tensor;
}

template <class T> std::vector<T> values(const ConstView& view) {
  const OnHost host(view);
  const auto flat = host.as<T>();
  return {flat.begin(), flat.end()};
}

TEST(Far, IsAnotherDeviceThatAContextIsMadeFor) {
  EXPECT_EQ(device_of("auto"), Device{});
  EXPECT_EQ(device_of("cpu"), Device{});
  EXPECT_EQ(kernels_for(kFar).backend, "far");
  EXPECT_THROW(kernels_for(kFar, "reference"), UserError);
  EXPECT_EQ(kernels_for(kFar, "counting").backend, "counting");
}

TEST(Far, OperandsOfTheHostAreRefused) {
  const Compute far({.device = kFar}, 1 << 20);
  const Tensor a = random({2, 3}, 1), c({2, 2}, DType::f32, kFar);
  EXPECT_THROW(gemm(far, {.a = a.view(), .b = a.view(), .b_transpose = Transpose::yes, .c = c}), InternalError);
  const Tensor there = upload(a.view(), kFar), table = upload(random({4, 3}, 2).view(), kFar);
  const std::vector<int32_t> ids = {3, 0};
  EXPECT_THROW(embedding(far, table.view(), ids, there), InternalError);
}

TEST(Far, ProductsHaveTheCpusBitsAndScratch) {
  const Compute cpu({.threads = 2}, 8 << 20), far({.device = kFar, .threads = 2}, 8 << 20);
  const Tensor a = random({70, 130}, 1), b = random({90, 130}, 2), c({70, 90}, DType::f32);
  const Tensor far_a = upload(a.view(), kFar), far_b = upload(b.view(), kFar), far_c({70, 90}, DType::f32, kFar);
  gemm(cpu, {.a = a.view(), .b = b.view(), .b_transpose = Transpose::yes, .c = c});
  gemm(far, {.a = far_a.view(), .b = far_b.view(), .b_transpose = Transpose::yes, .c = far_c});
  EXPECT_EQ(values<float>(far_c), values<float>(c));
  EXPECT_GT(cpu.peak_bytes(), 0);
  EXPECT_EQ(far.peak_bytes(), cpu.peak_bytes());
}

/// nll and arg max of some rows, with their labels and dhidden.
std::vector<float> scored(const Compute& compute, Device device) {
  const Context& ctx = compute;
  const auto scope = ctx.scratch.scope();
  const Tensor hidden = upload(random({5, 16}, 3).view(), device), weight = upload(random({200, 16}, 4).view(), device);
  const Tensor nll({5}, DType::f32, device), best({5}, DType::i32, device), dhidden({5, 16}, DType::f32, device);
  const std::vector<int32_t> labels = {0, 199, 7, 64, 128};
  cross_entropy(ctx, {.hidden = hidden.view(),
                      .weight = weight.view(),
                      .labels = upload(ctx, labels),
                      .nll = nll,
                      .best = best,
                      .dhidden = dhidden,
                      .dweight = {},
                      .chunk = 64});
  std::vector<float> all = values<float>(nll);
  for (const int32_t place : values<int32_t>(best)) all.push_back(static_cast<float>(place));
  for (const float gradient : values<float>(dhidden)) all.push_back(gradient);
  return all;
}

TEST(Far, CrossEntropyReadsNothingOnTheHost) {
  EXPECT_EQ(scored(Compute({.device = kFar}, 1 << 20), kFar), scored(Compute({}, 1 << 20), {}));
}

TEST(Far, DistillationHasTheCpusBitsAndScratch) {
  const auto computed = [](Device device, int64_t& peak) {
    const Compute compute({.device = device, .threads = 2}, 1 << 20);
    const Context& ctx = compute;
    const auto scope = ctx.scratch.scope();
    const auto there = [&](Shape shape, uint64_t seed) { return upload(random(shape, seed).view(), device); };
    const Tensor hidden = there({5, 16}, 3), weight = there({200, 16}, 4), teacher = there({5, 8}, 5),
                 teacher_weight = there({200, 8}, 6), nll({5}, DType::f32, device), kl({5}, DType::f32, device),
                 dhidden = there({5, 16}, 7), dweight = there({200, 16}, 8), losses({3}, DType::f64, device);
    const std::vector<int32_t> labels = {0, 199, 7, 64, 128}, rows = {0, 3, 4};
    std::vector<float> all;
    for (const TensorView& of_weight : {TensorView(), dweight.view()}) {
      distill(ctx, {.student = {.hidden = hidden.view(), .weight = weight.view()},
                    .teacher = {.hidden = teacher.view(), .weight = teacher_weight.view()},
                    .labels = upload(ctx, labels),
                    .temperature = 2,
                    .nll = nll,
                    .kl = kl,
                    .best = {},
                    .dhidden = dhidden,
                    .dweight = of_weight,
                    .chunk = 64});
      for (const Tensor* out : {&nll, &kl, &dhidden, &dweight})
        for (const float value : values<float>(*out)) all.push_back(value);
    }
    const Tensor other = there({5, 16}, 9);
    tail_loss(ctx, {.student = hidden.view(),
                    .teacher = other.view(),
                    .rows = upload(ctx, rows),
                    .eps = 1e-5,
                    .loss = losses,
                    .dstudent = dhidden});
    for (const float value : values<float>(dhidden)) all.push_back(value);
    for (const double value : values<double>(losses)) all.push_back(static_cast<float>(value));
    peak = compute.peak_bytes();
    return all;
  };
  int64_t far_peak = 0, cpu_peak = 0;
  EXPECT_EQ(computed(kFar, far_peak), computed({}, cpu_peak));
  EXPECT_GE(far_peak, cpu_peak);  // the index arrays go up
}

TEST(Far, CalibrationSumsAreFormedThere) {
  const auto computed = [](Device device) {
    const Compute compute({.device = device, .threads = 2}, 1 << 20);
    const Context& ctx = compute;
    const auto scope = ctx.scratch.scope();
    const Tensor x = upload(random({70, 33}, 1).view(), device), y = upload(random({70, 33}, 2).view(), device),
                 sums({34}, DType::f64, device);
    const std::vector<int32_t> rows = {2, 3, 69};
    const auto there = upload(ctx, rows);
    add_cosines(ctx, x.view(), y.view(), there, sums.view().slice_rows(33, 34));
    add_column_squares(ctx, x.view(), there, sums.view().slice_rows(0, 33));
    return values<double>(sums);
  };
  const auto want = computed({});
  EXPECT_NE(want[33], 0);
  EXPECT_EQ(computed(kFar), want);
}

TEST(Far, SegmentsAreReadWhereTheKernelsRun) {
  const auto attended = [](Device device) {
    const Compute compute({.device = device, .threads = 2}, 1 << 20);
    const Context& ctx = compute;
    const auto scope = ctx.scratch.scope();
    const Tensor q = upload(random({6, 16}, 5).view(), device), out({6, 16}, DType::f32, device);
    const std::vector<AttentionSegment> segments = {{0, 4, 0, 4}, {4, 6, 4, 6}};
    attention(ctx, {.q = q.view(),
                    .k = q.view(),
                    .v = q.view(),
                    .out = out,
                    .lse = {},
                    .heads = 2,
                    .kv_heads = 2,
                    .head_dim = 8,
                    .scale = 0.5,
                    .segments = upload(ctx, segments)});
    return values<float>(out);
  };
  EXPECT_EQ(attended(kFar), attended({}));
}

TEST(Far, DigestsAndNormsComeBackAsNumbers) {
  const Tensor x = random({1000}, 6), there = upload(x.view(), kFar), sum({1}, DType::f64, kFar);
  const Compute far({.device = kFar}, 1 << 20), cpu({}, 1 << 20);
  EXPECT_EQ(state_digest(far, there.view(), 3), state_digest(cpu, x.view(), 3));
  const Tensor own({1}, DType::f64);
  sum_of_squares(far, there.view(), sum);
  sum_of_squares(cpu, x.view(), own);
  EXPECT_EQ(values<double>(sum), values<double>(own));
}

TEST(Far, GainsBiasesAndGatesHaveTheCpusBits) {
  const auto computed = [](Device device) {
    const Compute ctx({.device = device, .threads = 2}, 1 << 20);
    const Tensor x = upload(random({70, 33}, 1).view(), device), row = upload(random({33}, 2).view(), device);
    const Tensor y = upload(random({70, 33}, 3).view(), device), sums({33}, DType::f32, device);
    scale_columns(ctx, x.view(), row.view(), y, Write::accumulate);
    add_bias(ctx, row.view(), y);
    scale(ctx, 0.3, x.view(), y, Write::accumulate);
    add_column_sums(ctx, y.view(), x.view(), sums);
    add_dot(ctx, x.view(), y.view(), x.view(), sums.view().slice_rows(4, 5));
    auto all = values<float>(y);
    for (const float sum : values<float>(sums)) all.push_back(sum);
    return all;
  };
  EXPECT_EQ(computed(kFar), computed({}));
}

TEST(Far, FillsMemoryOfItsOwnAndNoOther) {
  const Compute far({.device = kFar, .threads = 2}, 1 << 20);
  const Tensor there = upload(random({300, 70}, 1).view(), kFar), host({4}, DType::f32);
  fill(far, 2, there.view().slice_cols(3, 67));
  const auto found = values<float>(there);
  const Tensor before = random({300, 70}, 1);
  for (size_t i = 0; i < found.size(); ++i) {
    const bool is_filled = i % 70 >= 3 && i % 70 < 67;
    ASSERT_EQ(found[i], is_filled ? 2 : before.as<float>()[i]) << i;
  }
  const Tensor counts({5}, DType::i32, kFar);
  fill(far, -1, counts);
  EXPECT_EQ(values<int32_t>(counts), std::vector<int32_t>(5, -1));
  EXPECT_THROW(fill(far, 0, host), InternalError);
  EXPECT_THROW(fill(Compute({}, 1 << 20), 0, there), InternalError);
}

TEST(Far, VotesBecomeGradientsThere) {
  const VoteTerm votes[] = {{1, 0, 5}, {2, 1, -300}};
  const VoteGroup group{.seed = 7, .round = 2, .votes = votes, .alpha = 0.5f};
  const auto gradients = [&](Device device) {
    const Compute compute({.device = device}, 1 << 20);
    const Tensor sum({777}, DType::i32, device), y({777}, DType::f32, device);
    vote_sum(compute, 11, group, sum);
    add_integers(compute, sum.view(), 0.3f, y);
    vote_update(compute, y, 11, {&group, 1});
    return values<float>(y);
  };
  EXPECT_EQ(gradients(kFar), gradients({}));
}

TEST(AddIntegers, RoundsOnceAsFmaDoes) {
  for (const char* backend : {"reference", "cpu"}) {
    const Compute compute({.backend = backend, .threads = 2}, 1 << 20);
    std::vector<int32_t> x;
    std::vector<float> y, want;
    for (int32_t i = 0; i < 1003; ++i) {
      x.push_back((i - 500) * 16777 + 3);
      y.push_back(0.37f * static_cast<float>(i - 300));
      want.push_back(std::fma(1.1e-3f, static_cast<float>(x.back()), y.back()));
    }
    add_integers(compute, x, 1.1e-3f, y);
    EXPECT_EQ(y, want) << backend;
  }
}

}  // namespace
}  // namespace tessera
