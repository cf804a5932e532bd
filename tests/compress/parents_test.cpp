#include "compress/parents.h"

#include <gtest/gtest.h>

#include "compress/random_weights.h"

namespace tessera {
namespace {

using test::at;
using test::random_weight;

std::vector<double> random_moments(std::mt19937_64& random, int64_t channels) {
  return test::random_moments(random, channels, 1000);
}

/// A block of two linears, q [3, 4] and down [4, 5].
struct TinyBlock {
  TinyBlock(uint64_t seed, DType dtype) {
    std::mt19937_64 random(seed);
    q = random_weight(random, 3, 4, dtype);
    down = random_weight(random, 4, 5, dtype);
    block.linears = {{"self_attn.q_proj", Part::q, q.view()}, {"mlp.down_proj", Part::down, down.view()}};
    block.moments.attention = random_moments(random, 4);
    block.moments.down = random_moments(random, 5);
  }
  Tensor q, down;
  FoldBlock block;
};

TEST(Delta, CountsChannelsByTheChildsMoments) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const TinyBlock child(1, dtype), parent(2, DType::f32);
    double expected = 0, magnitude = 0;
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 4; ++j) {
        const double sigma = child.block.moments.attention[j], own = at(child.q, i, j);
        expected += sigma * (own - at(parent.q, i, j)) * (own - at(parent.q, i, j));
        magnitude += sigma * own * own;
      }
    for (int64_t i = 0; i < 4; ++i)
      for (int64_t j = 0; j < 5; ++j) {
        const double sigma = child.block.moments.down[j], own = at(child.down, i, j);
        expected += sigma * (own - at(parent.down, i, j)) * (own - at(parent.down, i, j));
        magnitude += sigma * own * own;
      }
    EXPECT_NEAR(delta_of(child.block, parent.block), expected, 1e-12 * expected);
    EXPECT_NEAR(magnitude_of(child.block), magnitude, 1e-12 * magnitude);
    EXPECT_NE(delta_of(child.block, parent.block), delta_of(parent.block, child.block));
    EXPECT_EQ(delta_of(child.block, child.block), 0);
  }
}

TEST(Delta, OfACopyIsZeroWhateverItsMoments) {
  const TinyBlock a(1, DType::bf16);
  TinyBlock copy(1, DType::bf16);
  copy.block.moments.attention = {1, 2, 3, 4};
  EXPECT_EQ(delta_of(copy.block, a.block), 0);
}

TEST(MomentFloors, AreAMillionthOfTheMean) {
  InputMoments moments{.attention = {4, 0, 8}, .o = {1e-9, 2}, .mlp = {0, 0}, .down = {5}};
  moments = floored(std::move(moments));
  EXPECT_EQ(moments.attention, (std::vector<double>{4, 4e-6, 8}));
  EXPECT_EQ(moments.o, (std::vector<double>{(1e-9 + 2) / 2 * 1e-6, 2}));
  EXPECT_EQ(moments.mlp, (std::vector<double>{1, 1}));  // no input at all
  EXPECT_EQ(moments.down, std::vector<double>{5});
  EXPECT_EQ(&moments.of(Part::k), &moments.attention);
  EXPECT_EQ(&moments.of(Part::up), &moments.mlp);
  EXPECT_EQ(&moments.of(Part::o), &moments.o);
}

TEST(Mean, OfEqualWeightsIsTheWeightToTheBit) {
  std::mt19937_64 random(3);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Tensor weight = random_weight(random, 6, 7, dtype);
    const std::vector<ConstView> three(3, weight.view());
    const Tensor mean = mean_weight(three, dtype);
    EXPECT_EQ(mean.dtype(), dtype);
    for (int64_t i = 0; i < 42; ++i) EXPECT_EQ(element(mean, i), element(weight, i)) << i;
  }
}

TEST(Mean, IsTheMiddle) {
  std::mt19937_64 random(4);
  const Tensor a = random_weight(random, 2, 3), b = random_weight(random, 2, 3, DType::bf16);
  const std::vector<ConstView> both = {a.view(), b.view()};
  const Tensor mean = mean_weight(both, DType::f32);
  for (int64_t i = 0; i < 6; ++i)
    EXPECT_EQ(element(mean, i), static_cast<float>((element(a, i) + element(b, i)) / 2)) << i;
}

TEST(WeightedMean, MakesTheSumOfDeltasLeast) {
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal;
  for (int round = 0; round < 20; ++round) {
    std::vector<Tensor> weights;
    std::vector<std::vector<double>> sigmas;
    for (int c = 0; c < 3; ++c) {
      weights.push_back(random_weight(random, 4, 5));
      sigmas.push_back(random_moments(random, 5));
    }
    const std::vector<ConstView> views = {weights[0], weights[1], weights[2]};
    const std::vector<std::span<const double>> spans(sigmas.begin(), sigmas.end());
    const auto loss = [&](const Tensor& shared) {
      double sum = 0;
      for (size_t c = 0; c < 3; ++c)
        for (int64_t i = 0; i < 4; ++i)
          for (int64_t j = 0; j < 5; ++j) {
            const double difference = at(views[c], i, j) - at(shared, i, j);
            sum += sigmas[c][j] * difference * difference;
          }
      return sum;
    };
    const Tensor best = weighted_mean_weight(views, spans, DType::f64);
    EXPECT_LT(loss(best), loss(mean_weight(views, DType::f64)));
    for (int neighbour = 0; neighbour < 20; ++neighbour) {
      Tensor other({4, 5}, DType::f64);
      for (int64_t i = 0; i < 20; ++i) set_element(other, i, element(best, i) + 1e-3 * normal(random));
      EXPECT_LT(loss(best), loss(other));
    }
  }
}

TEST(WeightedMean, OfEqualMomentsIsTheMean) {
  std::mt19937_64 random(6);
  const Tensor a = random_weight(random, 3, 2), b = random_weight(random, 3, 2);
  const std::vector<ConstView> both = {a.view(), b.view()};
  const std::vector<double> sigma = {0.5, 8};
  const std::vector<std::span<const double>> sigmas = {sigma, sigma};
  const Tensor mean = mean_weight(both, DType::f32), weighted = weighted_mean_weight(both, sigmas, DType::f32);
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(element(weighted, i), element(mean, i)) << i;
}

}  // namespace
}  // namespace tessera
