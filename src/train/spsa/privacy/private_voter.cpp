#include "train/spsa/privacy/private_voter.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/minifloat.h"
#include "train/spsa/vote_codec.h"

namespace tessera {

double noisy_slope(double sum, const PrivacyTerms& terms, int64_t batch, SystemRandom& random) {
  return (sum + terms.release.sigma * terms.clip * random.normal()) / static_cast<double>(batch);
}

PrivateVoter::PrivateVoter(const Voter::Inputs& in, const PrivacyTerms& terms)
    : in_(in), terms_(terms), pieces_(in.data.pieces_by_document()) {}

/// By the gaps between those that are drawn, which are geometric: as many draws as documents are taken.
std::vector<int64_t> PrivateVoter::draw_documents() {
  std::vector<int64_t> drawn;
  const double q = terms_.release.q;
  for (double at = -1;;) {
    at += q == 1 ? 1 : 1 + std::floor(std::log1p(-random_.uniform()) / std::log1p(-q));
    if (!(at < static_cast<double>(pieces_.size()))) return drawn;
    drawn.push_back(static_cast<int64_t>(at));
  }
}

double PrivateVoter::slope_of(int64_t document, const Direction& z, Measured& found) const {
  const auto eps = static_cast<float>(in_.header.eps);
  const std::array<Point, 2> points{Point{z, eps}, Point{z, -eps}};
  const std::vector<PackedBatch> batches =
      in_.data.batches_of_pieces(pieces_[static_cast<size_t>(document)], in_.prober.micro_rows(in_.train));
  if (batches.empty()) return 0;  // nothing of it is scored
  const auto sums = in_.prober.losses(in_.ctx, batches, points);
  const Objective& objective = objective_of(in_.train.objective);
  const double plus = objective.mean(sums[0]), minus = objective.mean(sums[1]);
  const double slope = (plus - minus) / (2 * static_cast<double>(eps));
  if (!std::isfinite(slope)) return 0;
  found.loss += 0.5 * (plus + minus);
  found.scored += objective.count(sums[0]);
  return std::clamp(slope, -terms_.clip, terms_.clip);
}

Measured PrivateVoter::measure(uint32_t round, int unit, uint32_t machine, uint32_t lane) {
  Measured found;
  double documents = 0;
  for (int64_t s = 0; s < in_.header.m; ++s) {
    const Direction z = direction_of(in_.header, round, machine, lane, static_cast<uint16_t>(s));
    double sum = 0;
    for (const int64_t document : draw_documents()) {
      sum += slope_of(document, z, found);
      ++documents;
    }
    const double g = noisy_slope(sum, terms_, in_.train.batch, random_);
    write_vote(in_.header, g, unit, random_.uniform(), found.bytes);
    if (in_.between) in_.between();
  }
  found.loss /= std::max(1.0, documents);
  return found;
}

}  // namespace tessera
