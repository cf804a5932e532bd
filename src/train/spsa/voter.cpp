// What one machine says in a round: for each probe how steep the loss is along its direction, as the codec writes it.
//
//   two-sided   g = [ L(w + eps z; B) − L(w − eps z; B) ] / (2 eps)      a batch B of its own for each probe
//   one-sided   g = [ L(w + eps z; B) − L(w; B) ] / eps                  one batch and one L(w) for all probes
//
// The rows of B are drawn, not counted off: (seed, round, machine, probe) name them, so that nobody hands them out, and
// a machine that was killed looks at the same ones again.

#include "train/spsa/voter.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

constexpr uint64_t kRowDraws = 0xba7c4;  // apart from other draws of the same round

}  // namespace

std::vector<PackedBatch> Voter::batches_of(uint32_t round, uint16_t probe) const {
  const int64_t batch = in_.train.batch, rows = in_.data.rows();
  const uint64_t key = hash_key({in_.header.seed, round, machine_, probe, kRowDraws});
  std::vector<int64_t> numbers;
  if (batch <= rows)
    for (const int32_t row : draw_distinct(key, rows, batch)) numbers.push_back(row);
  else  // fewer rows than a batch has places: some come twice
    for (int64_t i = 0; i < batch; ++i)
      numbers.push_back(static_cast<int64_t>(draw_below(key, static_cast<uint64_t>(i), static_cast<uint64_t>(rows))));
  std::vector<PackedBatch> batches;
  const int64_t micro = in_.prober.micro_rows(in_.train);
  for (int64_t begin = 0; begin < batch; begin += micro)
    batches.push_back(in_.data.batch(std::span(numbers).subspan(begin, std::min(micro, batch - begin)), begin));
  return batches;
}

Measured measured_of(std::span<const Probed> probes) {
  Measured found;
  for (const Probed& probed : probes) {
    found.bytes.insert(found.bytes.end(), probed.bytes.begin(), probed.bytes.end());
    found.loss += probed.loss;
    found.scored += probed.scored;
  }
  return found;
}

Probed Voter::probe(uint32_t round, int unit, uint16_t probe) const {
  const RunHeader& header = in_.header;
  const auto eps = static_cast<float>(header.eps);
  const Direction z = direction(round, probe);
  const std::array<Point, 2> points{Point{z, eps}, Point{z, -eps}};
  const auto sums = in_.prober.losses(in_.ctx, batches_of(round, probe), points);
  Probed found;
  found.scored = objective_.count(sums[0]);  // both sides score the same tokens
  // A batch without a scored token gives 0 / 1, not 0 / 0.
  const double count = std::max(1.0, static_cast<double>(found.scored));
  const double plus = objective_.sum(sums[0]), minus = objective_.sum(sums[1]);
  write_vote(header, (plus - minus) / count / (2 * static_cast<double>(eps)), unit, round, machine_, probe,
             found.bytes);
  found.loss = 0.5 * (plus + minus) / count / static_cast<double>(header.m);
  if (in_.between) in_.between();
  return found;
}

Measured Voter::two_sided(uint32_t round, int unit) const {
  std::vector<Probed> probes;
  for (int64_t s = 0; s < in_.header.m; ++s) probes.push_back(probe(round, unit, static_cast<uint16_t>(s)));
  return measured_of(probes);
}

Measured Voter::one_sided(uint32_t round, int unit) const {
  const RunHeader& header = in_.header;
  const auto eps = static_cast<float>(header.eps);
  // The first point is w itself, with a scale of 0: its loss is shared by all probes.
  std::vector<Point> points(1);
  for (int64_t s = 0; s < header.m; ++s) points.push_back({direction(round, static_cast<uint16_t>(s)), eps});
  const auto sums = in_.prober.losses(in_.ctx, batches_of(round, 0), points);
  const int64_t scored = objective_.count(sums[0]);
  const double count = std::max(1.0, static_cast<double>(scored));
  std::vector<double> rise;
  // Two passes, mean first: deviations may be small beside the mean, and a difference of large squares would lose them.
  double mean = 0, squares = 0;
  for (size_t k = 1; k < sums.size(); ++k) {
    rise.push_back((objective_.sum(sums[k]) - objective_.sum(sums[0])) / count);
    mean += rise.back() / static_cast<double>(header.m);
  }
  for (const double r : rise) squares += (r - mean) * (r - mean);
  // Of a sample: m − 1, since the mean was taken from the same values.
  const double deviation = std::sqrt(squares / static_cast<double>(std::max<int64_t>(1, header.m - 1)));
  const double scale = in_.spsa.normalise ? deviation : static_cast<double>(eps);
  Measured found{.bytes = {}, .loss = objective_.sum(sums[0]) / count, .scored = scored};
  for (size_t s = 0; s < rise.size(); ++s)
    write_vote(header, rise[s] / scale, unit, round, machine_, static_cast<uint16_t>(s), found.bytes);
  return found;
}

}  // namespace tessera
