// The quadratic of many simulated nodes: slopes by table against the definition, and votes that point downhill.

#include "train/spsa/simulate/quadratic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "train/spsa/replicas.h"

namespace tessera {
namespace {

using namespace test;

constexpr auto kWeights = static_cast<size_t>(Quadratic::kWeights);

std::vector<float> random_weights(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> w(kWeights);
  for (float& value : w) value = std::normal_distribution<float>(0, 1)(random);
  return w;
}

ConstView view(const std::vector<float>& w) { return view_of(std::span(w), {Quadratic::kWeights}); }

RunHeader header() {
  RunHeader h;
  h.seed = 0x1234567855aa55aaull;
  h.eps = 1e-2;
  h.m = 7;
  h.votes = VoteKind::float32;  // g as it is
  return h;
}

double lambda(size_t p) { return 1 / (1 + static_cast<double>(p) / 64); }
double minimum(size_t p) { return sign_at({.seed = header().seed, .machine = 0xffffff05u}, p); }

TEST(Quadratic, LossAndGradientAreTheFormula) {
  const std::vector<float> w = random_weights(1);
  const Quadratic quadratic(header().seed);
  const auto gradient = quadratic.gradient(view(w));
  double loss = 0;
  for (size_t p = 0; p < kWeights; ++p) {
    const double away = static_cast<double>(w[p]) - minimum(p);
    loss += lambda(p) * away * away / 2;
    ASSERT_DOUBLE_EQ(gradient[p], lambda(p) * away) << "weight " << p;
  }
  EXPECT_NEAR(quadratic.loss(view(w)), loss, 1e-9 * loss);
}

TEST(Quadratic, ASlopeByTableIsTheSumOverAllWeights) {
  const std::vector<float> w = random_weights(2);
  const Quadratic quadratic(header().seed);
  const auto gradient = quadratic.gradient(view(w));
  const SlopeTable table(gradient);
  for (uint32_t machine : {0u, 5u, 0xfffffeffu})
    for (const uint32_t lanes : {0u, 256u}) {
      const Direction z{
          .seed = 9, .round = 3, .machine = machine, .sample = 2, .lane = lanes ? 77u : 0u, .lanes = lanes};
      double sum = 0;
      for (size_t p = 0; p < kWeights; ++p) sum += gradient[p] * sign_at(z, p);
      EXPECT_NEAR(table.along(z), sum, 1e-12 * table.norm()) << machine << " " << lanes;
    }
}

/// The two-sided quotient of the loss itself, for an eps that is anything but small.
TEST(Quadratic, ASlopeIsTheTwoSidedQuotientForAnyEps) {
  const std::vector<float> w = random_weights(3);
  const Quadratic quadratic(header().seed);
  const Direction z{.seed = 9, .round = 3, .machine = 4, .sample = 2};
  const float eps = 0.5f;
  std::vector<float> plus = w, minus = w;
  for (size_t p = 0; p < kWeights; ++p) {
    const auto step = eps * static_cast<float>(sign_at(z, p));
    plus[p] += step;
    minus[p] -= step;
  }
  const double quotient = (quadratic.loss(view(plus)) - quadratic.loss(view(minus))) / (2 * static_cast<double>(eps));
  const SlopeTable table(quadratic.gradient(view(w)));
  EXPECT_NEAR(table.along(z), quotient, 1e-5 * table.norm());  // of w + eps z, rounded to f32
}

float vote_of(const Measured& found, size_t probe) {
  float g = 0;
  std::memcpy(&g, &found.bytes[probe * sizeof(g)], sizeof(g));
  return g;
}

TEST(Quadratic, AVoteIsTheSlopeAndNoiseOfHalfTheGradientsNorm) {
  const std::vector<float> w = random_weights(4);
  const RunHeader h = header();
  const auto losses = make_quadratic_losses(h, 1);
  const SlopeTable table(Quadratic(h.seed).gradient(view(w)));
  std::vector<double> noise;
  for (uint32_t machine = 0; machine < 300; ++machine) {
    const Measured found = losses->measure(view(w), 5, 9, machine, machine);
    ASSERT_EQ(found.bytes.size(), 4 * static_cast<size_t>(h.m));
    for (size_t s = 0; s < static_cast<size_t>(h.m); ++s)
      noise.push_back((static_cast<double>(vote_of(found, s)) -
                       table.along(direction_of(h, 5, machine, machine, static_cast<uint16_t>(s)))) /
                      (0.5 * table.norm()));
  }
  double sum = 0, squares = 0;
  for (const double u : noise) {
    EXPECT_LE(std::abs(u), 1 + 1e-4);
    sum += u;
    squares += u * u;
  }
  const auto count = static_cast<double>(noise.size());
  EXPECT_NEAR(sum / count, 0, 4 * std::sqrt(1.0 / 3 / count));
  EXPECT_NEAR(squares / count, 1.0 / 3, 4 * std::sqrt(4.0 / 45 / count));
}

TEST(Quadratic, TheMeanOfManyVotesTimesTheirDirectionsIsTheGradient) {
  const std::vector<float> w = random_weights(5);
  const RunHeader h = header();
  const auto losses = make_quadratic_losses(h, 1);
  const auto gradient = Quadratic(h.seed).gradient(view(w));
  const double norm = SlopeTable(gradient).norm();
  std::vector<double> mean(kWeights);
  constexpr uint32_t kMachines = 1000;
  const double votes = kMachines * static_cast<double>(h.m);
  for (uint32_t machine = 0; machine < kMachines; ++machine) {
    const Measured found = losses->measure(view(w), 1, 9, machine, machine);
    for (uint16_t s = 0; s < h.m; ++s) {
      const Direction z = direction_of(h, 1, machine, machine, s);
      const double g = static_cast<double>(vote_of(found, s)) / votes;
      for (size_t block = 0; block < kWeights / 128; ++block) {
        const auto signs = sign_block(z, block);
        for (size_t i = 0; i < 128; ++i) mean[128 * block + i] += signs[i / 32] >> (i % 32) & 1 ? -g : g;
      }
    }
  }
  // A weight's estimate has the variance of all others and of the noise: ||c||² (1 + 1/12) a vote.
  const double error = norm * std::sqrt((1 + 1.0 / 12) / votes);
  double chi = 0;
  for (size_t p = 0; p < kWeights; ++p) chi += std::pow((mean[p] - gradient[p]) / error, 2);
  EXPECT_NEAR(chi / static_cast<double>(kWeights), 1, 4 * std::sqrt(2.0 / static_cast<double>(kWeights)) + 0.02);
}

TEST(Quadratic, AVoteIsOfTheWeightsThatAreLookedAtWhateverWasLookedAtBefore) {
  std::vector<float> w = random_weights(6);
  const auto losses = make_quadratic_losses(header(), 1);
  const auto looked = [&] { return losses->measure(view(w), 4, 9, 1, 1).bytes; };
  const auto first = looked();
  w.back() += 1;
  EXPECT_NE(looked(), first);
  for (int i = 0; i < 40; ++i) {  // more than are kept
    w.front() += 1;
    looked();
  }
  w = random_weights(6);
  EXPECT_EQ(looked(), first);
}

}  // namespace
}  // namespace tessera
