#include "train/spsa/simulate/quadratic.h"

#include <cmath>
#include <cstring>
#include <deque>

#include "core/error.h"
#include "train/spsa/simulate/sim_draws.h"
#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

constexpr int64_t kTogether = 8;  // weights whose signs are looked up at once
constexpr size_t kPatterns = 256;

}  // namespace

Quadratic::Quadratic(uint64_t seed) {
  const Direction minimum{.seed = seed, .round = 0, .machine = kQuadraticStream, .sample = 0};
  for (int64_t p = 0; p < kWeights; ++p) {
    lambda_.push_back(1 / (1 + static_cast<double>(p) / 64));
    minimum_.push_back(sign_at(minimum, static_cast<uint64_t>(p)));
  }
}

std::vector<double> Quadratic::gradient(ConstView w) const {
  const auto values = w.as<float>();
  std::vector<double> slopes;
  for (size_t p = 0; p < lambda_.size(); ++p)
    slopes.push_back(lambda_[p] * (static_cast<double>(values[p]) - minimum_[p]));
  return slopes;
}

double Quadratic::loss(ConstView w) const {
  const auto values = w.as<float>();
  double sum = 0;
  for (size_t p = 0; p < lambda_.size(); ++p) {
    const double away = static_cast<double>(values[p]) - minimum_[p];
    sum += 0.5 * lambda_[p] * away * away;
  }
  return sum;
}

SlopeTable::SlopeTable(const std::vector<double>& coefficients)
    : blocks_(std::ssize(coefficients) / 128), sums_(coefficients.size() / kTogether * kPatterns) {
  TS_CHECK(coefficients.size() % 128 == 0, "{} weights, not a multiple of 128", coefficients.size());
  double squares = 0;
  for (const double c : coefficients) squares += c * c;
  norm_ = std::sqrt(squares);
  for (size_t group = 0; group < coefficients.size() / kTogether; ++group) {
    double* sums = &sums_[group * kPatterns];
    // With each weight there are twice as many patterns.
    for (size_t i = 0, patterns = 1; i < kTogether; ++i, patterns *= 2)
      for (size_t pattern = 0; pattern < patterns; ++pattern) {
        const double c = coefficients[group * kTogether + i], before = sums[pattern];
        sums[pattern] = before + c;
        sums[pattern + patterns] = before - c;
      }
  }
}

double SlopeTable::along(const Direction& z) const {
  double sum = 0;
  const double* sums = sums_.data();
  for (int64_t block = 0; block < blocks_; ++block)
    for (uint32_t word : sign_block(z, static_cast<uint64_t>(block)))
      for (int k = 0; k < 4; ++k, word >>= 8, sums += kPatterns) sum += sums[word & 0xff];
  return sum;
}

namespace {

class QuadraticLosses final : public SimLosses {
 public:
  QuadraticLosses(const RunHeader& header, uint64_t seed) : header_(header), seed_(seed), quadratic_(header.seed) {}

  Measured measure(ConstView values, uint32_t round, int unit, uint32_t machine, uint32_t lane) override {
    const Seen& seen = look(values.as<float>());
    Measured found{.bytes = {}, .loss = seen.loss, .scored = header_.m};
    for (int64_t s = 0; s < header_.m; ++s) {
      const auto probe = static_cast<uint16_t>(s);
      const double u = 2 * sim_unit(sim_key(seed_, machine, SimDraw::noise, round), probe) - 1;
      const double g =
          seen.slopes.along(direction_of(header_, round, machine, lane, probe)) + 0.5 * seen.slopes.norm() * u;
      write_vote(header_, g, unit, round, machine, probe, found.bytes);
    }
    return found;
  }

 private:
  struct Seen {
    std::vector<float> values;
    SlopeTable slopes;
    double loss;
  };
  /// Most nodes look at what others have looked at before.
  const Seen& look(std::span<const float> values) {
    for (const Seen& seen : seen_)
      if (std::memcmp(seen.values.data(), values.data(), values.size_bytes()) == 0) return seen;
    if (seen_.size() == kKept) seen_.pop_back();
    const ConstView view = view_of(values, {Quadratic::kWeights});
    seen_.push_front({{values.begin(), values.end()}, SlopeTable(quadratic_.gradient(view)), quadratic_.loss(view)});
    return seen_.front();
  }

  static constexpr size_t kKept =
      20;  // tables, of 1 MB each: nodes look at weights of stale_max + 2 rounds, 17 at most
  RunHeader header_;
  uint64_t seed_;
  Quadratic quadratic_;
  std::deque<Seen> seen_;  // the newest first
};

}  // namespace

std::unique_ptr<SimLosses> make_quadratic_losses(const RunHeader& header, uint64_t simulate_seed) {
  return std::make_unique<QuadraticLosses>(header, simulate_seed);
}

void reserve_quadratic(ParameterPool& pool) {
  pool.reserve("quadratic", {.shape = {Quadratic::kWeights}, .init = {Init::Kind::zeros, 0, {}}});
}

}  // namespace tessera
