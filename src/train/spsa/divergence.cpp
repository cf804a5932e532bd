#include "train/spsa/divergence.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/minifloat.h"
#include "core/tensor.h"
#include "train/divergence.h"

namespace tessera {
namespace {

constexpr int kMostEmptyRounds = 16;
constexpr double kNoise = 1.05;  // of the loss of other rows

double mean_loss(const Record& record) {
  double sum = 0;
  for (const uint16_t bits : record.losses) sum += static_cast<double>(to_float(Float16{bits}));
  return sum / static_cast<double>(record.losses.size());
}

/// Whether a probe said that its loss is not finite. Bytes and signs have a code for that; of floats it is in the loss.
bool has_invalid_vote(const Record& record, int64_t bytes_per_probe) {
  return bytes_per_probe == 1 &&
         std::find(record.bytes.begin(), record.bytes.end(), kInvalidVote) != record.bytes.end();
}

}  // namespace

uint32_t last_good_round(const StepLog& log, int64_t bytes_per_probe) {
  if (log.first_index() > 0) return 0;
  uint32_t good = 0;
  double first = std::nan("");
  log.for_each(0, [&](const Record& record, std::span<const std::byte>) {
    if (record.type != RecordType::round) return true;
    if (has_invalid_vote(record, bytes_per_probe)) return false;
    if (record.losses.empty()) {
      good = record.round / 2;  // nothing tells how far it had gone astray before
      return true;
    }
    const double loss = mean_loss(record);
    if (!std::isfinite(loss)) return false;
    if (record.round == 0) first = loss;
    // The last such round counts: a loss may have risen for a while and come back.
    if (loss <= kNoise * first) good = record.round;
    return true;
  });
  return good;
}

std::string hint_of_lower_rate(const std::string& other_remedy, uint32_t round) {
  std::string anew = fmt::format(
      "lower optimizer.lr or {} in a new run (another run.dir, and spsa.shared where it is set)", other_remedy);
  if (round == 0) return anew;
  return fmt::format(
      "{}; or lower optimizer.lr alone and go on from round {} in a branch: job=replay replay.round={} "
      "replay.branch=FOLDER, then train with run.dir=FOLDER",
      anew, round, round);
}

void refuse_empty_rounds(const Replica& replica, Model& model, const StepLog* log, int64_t step) {
  if (replica.empty_rounds() < kMostEmptyRounds) return;
  refuse_broken_base(model, step);
  const uint32_t good = log ? last_good_round(*log, replica.header().bytes_per_probe()) : 0;
  throw UserError(fmt::format("step {}", step),
                  fmt::format("no vote of the last {} rounds was valid: {}", kMostEmptyRounds, name_broken(model)),
                  "the losses are not finite: " + hint_of_lower_rate("spsa.eps", good));
}

}  // namespace tessera
