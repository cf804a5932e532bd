#include "train/spsa/simulate/shared_replica.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace tessera {
namespace {

constexpr uint32_t kStays = std::numeric_limits<uint32_t>::max();
constexpr double kSignsPerSecond = 5e9, kHadamardPerSecond = 2.6e9;  // of one core

Tensor copy_of(const TensorView& values) {
  Tensor copy(values.shape, values.dtype);
  std::memcpy(copy.view().mutable_data(), values.data, static_cast<size_t>(values.bytes()));
  return copy;
}

}  // namespace

OwnWeights::OwnWeights(const FlatParams& start) : memory(copy_of(start.values)), params(start) {
  params.values = memory.view();
}

SharedReplica::SharedReplica(const Context& ctx, const RunHeader& header, const FlatParams& start)
    : own_(start), replica_(header, own_.params) {
  keep_state(ctx);
}

void SharedReplica::keep_state(const Context& ctx) {
  const RecentRounds& recent = replica_.recent();
  const int unit = recent.unit();
  // Nobody looks ahead where no vote may be late.
  const int next = recent.stale_max() > 0 ? recent.unit_of(recent.next_round() + 1) : unit;
  states_.push_back(
      {.round = replica_.round(), .values = copy_of(own_.params.values), .unit = unit, .next_unit = next});
  // While it is the newest: of an optimizer's state there is no copy.
  if (replica_.round() > 0 && replica_.round() % static_cast<uint32_t>(replica_.header().digest_every) == 0)
    states_.back().digest = replica_.digest(ctx);
  while (std::ssize(states_) > replica_.header().stale_max + 2) states_.pop_front();
}

void SharedReplica::apply(const Context& ctx, const Record& record) {
  replica_.apply(ctx, record);
  rounds_.push_back(replica_.round());
  if (record.type != RecordType::round) return;
  seconds_.push_back(seconds_.back() + seconds_of_round(record));
  for (const RosterChange& change : record.roster) {
    if (change.add)
      stays_[change.machine] = {change.lane, record.round, kStays};
    else
      stays_[change.machine].left = record.round;
  }
  keep_state(ctx);
}

double SharedReplica::seconds_of_round(const Record& record) const {
  const RunHeader& header = replica_.header();
  const auto weights = static_cast<double>(own_.params.values.shape.count());
  size_t bytes = record.bytes.size();
  for (const ExtraGroup& group : record.extra) bytes += group.bytes.size();
  const double votes = static_cast<double>(bytes) / static_cast<double>(header.bytes_per_probe());
  if (header.family != Family::hadamard) return weights * votes / kSignsPerSecond;
  return weights * std::ceil(votes / static_cast<double>(header.lanes)) / kHadamardPerSecond;
}

const SharedReplica::State* SharedReplica::behind(uint32_t round) const {
  for (const State& state : states_)
    if (state.round == round) return &state;
  return nullptr;
}

const SharedReplica::Stay* SharedReplica::stay_of(uint32_t machine) const {
  const auto found = stays_.find(machine);
  return found == stays_.end() ? nullptr : &found->second;
}

std::optional<uint32_t> SharedReplica::lane_of(uint32_t machine, uint32_t rounds) const {
  const Stay* stay = stay_of(machine);
  if (!stay || stay->joined >= rounds || stay->left < rounds) return std::nullopt;
  return stay->lane;
}

}  // namespace tessera
