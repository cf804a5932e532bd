// What a byte tells of one document, and that documents are drawn, clipped and read as the accountant assumes.

#include "train/spsa/privacy/private_voter.h"

#include <gmock/gmock.h>

#include <map>
#include <numeric>

#include "support/tiny_model.h"
#include "train/spsa/replicas.h"

namespace tessera {
namespace {

using namespace test;

TEST(SystemNumbers, AreUniformAndNormal) {
  SystemRandom random;
  double sum = 0, squares = 0, fourth = 0, uniform = 0;
  constexpr int kDraws = 200'000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = random.uniform(), z = random.normal();
    ASSERT_TRUE(u >= 0 && u < 1);
    uniform += u / kDraws;
    sum += z / kDraws;
    squares += z * z / kDraws;
    fourth += z * z * z * z / kDraws;
  }
  EXPECT_NEAR(uniform, 0.5, 5 * 0.2887 / std::sqrt(kDraws));
  EXPECT_NEAR(sum, 0, 5 / std::sqrt(kDraws));
  EXPECT_NEAR(squares, 1, 5 * std::sqrt(2.0 / kDraws));
  EXPECT_NEAR(fourth, 3, 5 * std::sqrt(96.0 / kDraws));
}

/// How often each byte comes, of so many releases.
std::map<uint8_t, double> bytes_of(double sum, const PrivacyTerms& terms, int draws) {
  OwnPool own;
  const RunHeader header = header_of(own);
  SystemRandom random;
  std::map<uint8_t, double> counts;
  std::vector<uint8_t> bytes;
  for (int i = 0; i < draws; ++i) {
    bytes.clear();
    write_vote(header, noisy_slope(sum, terms, 8, random), 0, random.uniform(), bytes);
    ++counts[bytes.front()];
  }
  return counts;
}

TEST(PrivateVotes, OfNeighbouringBatchesAreAlikeWithinTheMechanismsBound) {
  // One document more, which gives all that it may: a shift by C where the noise has a deviation of C.
  const PrivacyTerms terms{.release = {.q = 1, .sigma = 1}, .clip = 800};
  constexpr int kDraws = 300'000;
  const auto without = bytes_of(0, terms, kDraws), with = bytes_of(terms.clip, terms, kDraws);
  double largest = 0;
  int compared = 0;
  for (const auto& [byte, count] : with) {
    const auto other = without.find(byte);
    if (count < 100 || other == without.end() || other->second < 100) continue;
    const double ratio = std::abs(std::log(count / other->second));
    largest = std::max(largest, ratio - 4 * std::sqrt(1 / count + 1 / other->second));
    ++compared;
  }
  EXPECT_GT(compared, 20) << "the code has many bytes at this scale";
  // Of the Gaussian mechanism with sigma = 1 at the delta of what is too rare to be compared.
  const double delta = 100.0 / kDraws;
  EXPECT_LT(largest, std::sqrt(2 * std::log(1.25 / delta)));
  EXPECT_GT(largest, 1) << "a document does move the byte: the test sees something";
}

TEST(PrivateVotes, CodeWithoutNoiseWouldFailThatBound) {
  const PrivacyTerms terms{.release = {.q = 1, .sigma = 1e-6}, .clip = 800};
  const auto without = bytes_of(0, terms, 2000), with = bytes_of(terms.clip, terms, 2000);
  for (const auto& [byte, count] : with) {
    if (count >= 100) {
      EXPECT_FALSE(without.contains(byte)) << int{byte};
    }
  }
}

}  // namespace
}  // namespace tessera
