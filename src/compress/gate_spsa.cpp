#include "compress/gate_spsa.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "compress/calibration.h"
#include "core/device/memory.h"
#include "core/direction.h"
#include "core/error.h"
#include "io/sha256.h"
#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr double kEps = 0.1;  // how far a probe goes: a fraction of the way from an open gate to a shut one
constexpr const char* kLog = "gates-log";

/// One slot of so many numbers, all of them 1.
void lay_out(ParameterPool& pool, int64_t count, uint64_t seed) {
  pool.reserve("fold.theta",
               {.shape = {count}, .init = {.kind = Init::Kind::ones, .source = {}}, .weight_decay = false});
  pool.allocate(seed, ParameterPool::Gradients::no);
}

/// The slot's numbers, of the pool's values or of a copy of them.
std::vector<double> numbers(const FlatParams& params, const ConstView& values) {
  const TrainableSlot& slot = params.slots.front();
  const OnHost host(values.slice_rows(slot.begin, slot.begin + slot.shape.count()));
  std::vector<double> all;
  for (int64_t i = 0; i < slot.shape.count(); ++i) all.push_back(element(host.view(), i));
  return all;
}

}  // namespace

SpsaGates::SpsaGates(const StageInputs& in, const GateUnits& units, bool goes_on)
    : GateTrainer(in, units, GateState::open(units.count())), pool_(DType::f32, Memory::held, in.ctx.device) {
  lay_out(pool_, static_cast<int64_t>(units.count()), static_cast<uint64_t>(in.train.seed));
  open_log(goes_on);
}

RunHeader SpsaGates::header() const {
  const FlatParams& params = pool_.trainable();
  RunHeader header;
  header.rules = kNewestRules;
  header.base = in_.model.base_fingerprint();
  header.selection = Json::object().set("method", "fold gates").set("gates", in_.fold.gates).dump();
  header.start = values_digest(in_.ctx, params, params.values).text();
  header.manifest = manifest_of(params);
  header.seed = static_cast<uint64_t>(in_.train.seed);
  header.eps = kEps;
  header.m = kGateProbes;
  header.optimizer = "adamw";  // with the header's own betas, which are those of backpropagation
  return header;
}

/// What rank 0 has on disk is followed by all.
void SpsaGates::open_log(bool goes_on) {
  const fs::path folder = in_.folder / kLog;
  if (in_.is_root()) {
    if (!goes_on) fs::remove_all(folder);
    log_.emplace(StepLog::create(folder, header().text(), {}));
    for (const std::string& notice : log_->notices()) in_.say("gates: " + notice);
  }
  const std::string text = broadcast_text(in_.world, log_ ? log_->header() : "");
  run_.sha256 = sha256(std::as_bytes(std::span(text)));
  replica_.emplace(RunHeader::parse(text, (folder / "header.json").string()), pool_.trainable());
  std::vector<Bytes> records;
  if (log_)
    log_->for_each(log_->first_index(), [&](const Record&, std::span<const std::byte> record) {
      records.emplace_back(record.begin(), record.end());
      return true;
    });
  std::vector<double> count = {static_cast<double>(records.size())};
  in_.world.all_reduce_max(count);
  records.resize(static_cast<size_t>(count[0]));
  for (Bytes& record : records) {
    in_.world.broadcast(record, 0);
    follow(record);
  }
  end_log();
}

/// The record is in the log.
void SpsaGates::follow(std::span<const std::byte> bytes) {
  const auto decoded = decode_record(bytes);
  const Record* record = std::get_if<Record>(&decoded);
  TS_CHECK(record, "a record of the log of gates is damaged");
  tip_.advance(bytes);
  has_ended_ = record->type == RecordType::end;
  if (record->type != RecordType::round) return;
  const std::vector<double> before = gates();
  replica_->apply(in_.ctx, *record);
  const std::vector<double> theta = numbers(pool_.trainable(), pool_.trainable().values);
  for (size_t i = 0; i < theta.size(); ++i)
    if (units_.is_trained[i]) state_.theta[i] = theta[i];  // directions move the others, too, and nobody reads them
  end_step(replica_->last().loss, before);
}

void SpsaGates::end_log() {
  if (!is_done() || has_ended_) return;
  const Bytes end = encode(record_head(*replica_, run_, tip_, RecordType::end));
  if (log_) log_->append(end);
  follow(end);
}

bool SpsaGates::take_step() {
  const Round measured = round();
  const auto number = static_cast<uint32_t>(state_.step);
  Vote vote;
  double loss = 0;
  for (size_t k = 0; k < measured.probes.size(); ++k) {
    const Probe& probe = measured.probes[k];
    write_vote(replica_->header(), probe.vote, replica_->unit(), number, 0, static_cast<uint16_t>(k), vote.bytes);
    loss += probe.loss / static_cast<double>(kGateProbes);
  }
  if (!std::isfinite(loss)) {
    const int64_t block = broken_block([&](const auto& f) { for_each_batch(f); }, gates());
    refuse_step(name_broken(block));
  }
  vote.loss = to_float16(static_cast<float>(loss)).bits;
  const Vote::Offer offer{.rate = static_cast<float>(in_.fold.gate_lr), .mul = 1};
  const Bytes record = encode(pack_round(*replica_, run_, tip_, {{0, vote}}, 1, offer));
  if (log_) log_->append(record);
  follow(record);
  end_log();
  return measured.stop;
}

/// Each rank's probes, gathered in their order.
SpsaGates::Round SpsaGates::round() const {
  const int64_t ranks = in_.world.size();
  std::vector<double> mine = {in_.stop_requested() ? 1.0 : 0.0};
  for (int64_t probe = in_.world.rank(); probe < kGateProbes; probe += ranks) {
    const Probe found = measure(probe);
    mine.insert(mine.end(), {found.vote, found.loss});
  }
  const auto all = in_.world.all_gather(std::as_bytes(std::span(mine)));
  const auto value = [&](int64_t rank, int64_t place) {
    double number = 0;
    std::memcpy(&number, all[static_cast<size_t>(rank)].data() + place * static_cast<int64_t>(sizeof number),
                sizeof number);
    return number;
  };
  Round round;
  for (int64_t rank = 0; rank < ranks; ++rank) round.stop = round.stop || value(rank, 0) > 0;
  for (int64_t probe = 0; probe < kGateProbes; ++probe) {
    const int64_t place = 1 + 2 * (probe / ranks);
    round.probes.push_back({.vote = value(probe % ranks, place), .loss = value(probe % ranks, place + 1)});
  }
  return round;
}

/// From 1 down, however far above it theta has gone: the slope of a gate is not 0 at 1, and where both sides were open
/// alike nothing would ever bring theta back. At 0 the slope is 0, and what is well below it stays shut.
std::vector<double> SpsaGates::theta_at(const Direction& z, double way) const {
  std::vector<double> theta = state_.theta;
  for (size_t i = 0; i < theta.size(); ++i) theta[i] = std::min(theta[i], 1.0) + way * sign_at(z, i);
  return theta;
}

SpsaGates::Probe SpsaGates::measure(int64_t probe) const {
  const Direction z =
      direction_of(replica_->header(), static_cast<uint32_t>(state_.step), 0, 0, static_cast<uint16_t>(probe));
  const std::array<std::vector<double>, 2> at{gates_at(theta_at(z, kEps)), gates_at(theta_at(z, -kEps))};
  const std::array<BlockGates, 2> points{units_.gates(at[0]), units_.gates(at[1])};
  std::array<GateLossSums, 2> sums;
  const int64_t first = in_.fold.calibration_rows + (state_.step * kGateProbes + probe) * in_.fold.gate_batch;
  for_each_pass_of_all(in_, first, in_.fold.gate_batch, [&](const PackedBatch& batch) {
    score_gates(in_.ctx, in_.model, batch, gate_loss_of(in_.fold), points, sums);
  });
  std::array<double, 2> loss{}, lowered{};
  for (size_t side = 0; side < 2; ++side) {
    loss[side] = sums[side].loss / std::max(1.0, sums[side].scored);
    lowered[side] = loss[side] + constraint_.penalty(constraint_.counted(at[side], bend()), state_.mu);
  }
  return {.vote = (lowered[0] - lowered[1]) / (2 * kEps), .loss = (loss[0] + loss[1]) / 2};
}

/// The rows of this rank's probes of the step.
void SpsaGates::for_each_batch(const std::function<void(const PackedBatch&)>& f) const {
  for (int64_t probe = in_.world.rank(); probe < kGateProbes; probe += in_.world.size())
    for_each_pass_of_all(in_, in_.fold.calibration_rows + (state_.step * kGateProbes + probe) * in_.fold.gate_batch,
                         in_.fold.gate_batch, f);
}

int64_t plan_spsa_gates(const StageSizes& sizes) {
  Model& model = sizes.model;
  const GateUnits units = gate_units(sizes.fold, model.decoder().specs(), model.decoder().num_layers());
  const std::vector<double> ones = units.ones();
  const std::array<BlockGates, 1> point{units.gates(ones)};
  return plan_widest(rows_of_pass(sizes.train, sizes.fold.gate_batch, 1), sizes.train.sequence_length,
                     model.pool().device(), sizes.threads, [&](const Context& ctx, const PackedBatch& batch) {
                       std::array<GateLossSums, 1> sums;
                       score_gates(ctx, model, batch, gate_loss_of(sizes.fold), point, sums);
                     });
}

}  // namespace tessera
