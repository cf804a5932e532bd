//   record -> groups of votes (decoded, clipped) -> integer sums A -> weights -> digests compared
// Everything up to the sums is exact in integers; from there on it is a fixed sequence of IEEE operations a weight. So
// the number of machines, threads or vector lanes cannot show in the weights.

#include "train/spsa/replica.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/minifloat.h"
#include "kernels/elementwise.h"
#include "train/spsa/divergence.h"
#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

constexpr size_t kHistory = 64;      // rounds that the unit is judged by
constexpr int64_t kChunk = 1 << 16;  // weights whose gradient is in memory at once

/// Decay is no part of it: a round's record says how much (`mul`), for every optimizer.
OptimizerConfig optimizer_of(const RunHeader& h) {
  return {.name = h.optimizer,
          .beta1 = h.beta1,
          .beta2 = h.beta2,
          .eps = h.adam_eps,
          .weight_decay = 0,
          .momentum = h.momentum};
}

/// Machines that trust each other write no record that is not true.
std::string who_may_lie(const RunHeader& header) {
  if (!header.terms) return "";
  return header.terms->signers.empty()
             ? "\nrecords are not signed, so any machine that may write them can have written what is not true; in a run "
               "with spsa.signers only records of the keys count that are named there"
             : "\nor one of those who hold a key of spsa.signers has written what is not true";
}

}  // namespace

Replica::Replica(RunHeader header, FlatParams& params)
    : header_(std::move(header)),
      params_(params),
      recent_(header_.late_rounds(), header_.unit),
      optimizer_(
          make_optimizer(optimizer_of(header_), params.values.shape.count(), header_.rules, params.values.device)) {
  if (header_.family == Family::pool) pool_.emplace(header_.seed, header_.lanes, params);
}

void Replica::apply(const Context& ctx, const Record& record) { apply(ctx, {&record, 1}); }

// The weights are as large as the model and a round's votes are some hundred bytes: replay is bound by passes over the
// weights. Where the update keeps no state, groups of many rounds wait and are applied in one pass. That changes no
// bit: a weight is rounded after each group, in their order (kernels/votes.h).
void Replica::apply(const Context& ctx, std::span<const Record> records) {
  const bool together = optimizer_->is_linear() && !pool_;
  std::vector<Group> waiting;
  const auto flush = [&] {
    update(ctx, waiting);
    waiting.clear();
  };
  for (const Record& record : records) {
    if (record.type != RecordType::round) {
      if (record.type == RecordType::digest || record.type == RecordType::snapshot) {
        flush();
        check_digest(ctx, record);
      }
      continue;
    }
    begin_round(record);
    std::vector<Group> groups = groups_of(record);
    if (together)
      std::move(groups.begin(), groups.end(), std::back_inserter(waiting));
    else if (pool_)
      update_pool(ctx, groups);
    else
      update_with_gradients(ctx, record, groups);
    // A bound on what waits: a thousand groups are some hundred kilobytes of votes, and long enough a pass.
    if (waiting.size() >= 1024) flush();
    end_round(record);
  }
  flush();
}

void Replica::begin_round(const Record& record) {
  last_ = {};
  last_.alpha = record.alpha;
  last_.unit = header_.unit_of(recent_.unit());
  last_.step_unit = header_.step_unit_of(recent_.unit());
}

std::vector<Group> Replica::groups_of(const Record& record) {
  const Roster now = recent_.roster_behind(record);
  VoteCounts counts;
  std::vector<Group> groups;
  for (const Ballots& ballots : ballots_of(record, recent_, now)) {
    auto added = tessera::groups_of(header_, ballots, counts);
    std::move(added.begin(), added.end(), std::back_inserter(groups));
  }
  if (counts.valid > 0) last_.vote_rms = std::sqrt(counts.squares / static_cast<double>(counts.valid));
  last_.votes = counts.votes;
  last_.valid = counts.valid;
  last_.clipped = counts.clipped();
  last_.counted = counts.counted;
  // The decay belongs to the round, not to each of its groups.
  for (size_t g = 0; g < groups.size(); ++g) groups[g].view.mul = g == 0 ? record.mul : 1.0f;
  return groups;
}

namespace {

/// A group as the kernels take it. The spans point into `group`, which must stay where it is.
VoteGroup kernel_group(const Group& group, const TrainableSlot& slot) {
  VoteGroup view = group.view;
  if (group.transformed.empty())
    view.votes = group.votes;
  else
    view.transformed = group.transformed;
  // A slot whose steps are scaled takes its part of the same vote.
  view.alpha *= slot.step_scale;
  if (!slot.weight_decay) view.mul = 1;
  return view;
}

}  // namespace

void Replica::update(const Context& ctx, std::span<const Group> groups) {
  if (groups.empty()) return;
  std::vector<VoteGroup> views;
  for (const TrainableSlot& slot : params_.slots) {
    views.clear();
    for (const Group& group : groups) views.push_back(kernel_group(group, slot));
    vote_update(ctx, params_.values.slice_rows(slot.begin, slot.begin + slot.shape.count()), slot.begin, views);
  }
}

/// grads = Σ_groups s_group · A_group, chunk by chunk; s = 2^-unit / N with the unit of each group's seed round.
void Replica::update_with_gradients(const Context& ctx, const Record& record, std::span<const Group> groups) {
  // By what the record's own bytes say, not by who is there now: every replica counts the same. Where all votes are
  // late, the round's own group is empty, and nothing may be divided by its count.
  const auto n = static_cast<float>(std::max<int64_t>(1, last_.counted));
  const auto scale_of = [&](int unit) { return std::ldexp(1.0f, -header_.step_unit_of(unit)) / n; };
  const float s = scale_of(recent_.unit());
  beta1_power_ *= header_.beta1;  // not rounded to f32: logs were written so
  beta2_power_ *= header_.beta2;
  const RunStep step{.lr = -record.alpha / s, .grad_scale = 1, .corrections = {1 - beta1_power_, 1 - beta2_power_}};
  const Tensor sum({kChunk}, DType::i32, ctx.device), grads({kChunk}, DType::f32, ctx.device);
  for (const TrainableSlot& slot : params_.slots) {
    // A group without votes: it only multiplies, by the kernel that every other decay goes through.
    const VoteGroup decay{.mul = slot.weight_decay ? record.mul : 1.0f};
    for (int64_t done = 0; done < slot.shape.count(); done += kChunk) {
      const int64_t begin = slot.begin + done, count = std::min(kChunk, slot.shape.count() - done);
      const TensorView values = params_.values.slice_rows(begin, begin + count);
      const TensorView a = sum.view().slice_rows(0, count), g = grads.view().slice_rows(0, count);
      // Gradients begin at zero for each chunk, and exist for one chunk at a time.
      fill(ctx, 0, g);
      for (const Group& group : groups) {
        vote_sum(ctx, begin, kernel_group(group, slot), a);
        add_integers(ctx, a, scale_of(group.unit), g);
      }
      if (decay.mul != 1) vote_update(ctx, values, begin, {&decay, 1});
      optimizer_->step_run(ctx, {.slot = slot, .begin = done, .values = values, .grads = g}, step);
    }
  }
}

void Replica::update_pool(const Context& ctx, std::span<const Group> groups) {
  for (const Group& group : groups) {
    VoteGroup view = group.view;
    view.votes = group.votes;
    if (!pool_->add(ctx, view))
      throw UserError(fmt::format("round {}", round_), "a sum of the seed pool has left its 64 bits",
                      hint_of_lower_rate("raise spsa.unit", round_ / 2));
  }
  pool_->write_values();
}

void Replica::end_round(const Record& record) {
  ++round_;
  note_median(record);
  const int before = recent_.announced();
  recent_.accept(record);
  // A new unit: medians so far were counted in the old one.
  if (recent_.announced() != before) medians_.clear();
  empty_rounds_ = last_.valid == 0 ? empty_rounds_ + 1 : 0;
  // More than half of the votes are not finite: the weights have gone where losses break,
  // and a smaller rate may save them.
  const bool halves = last_.valid > 0 || header_.rules != Rules::first;
  if (halves && 2 * last_.valid < last_.votes) ++halvings_;
  double loss = 0;
  for (const uint16_t bits : record.losses) loss += static_cast<double>(to_float(Float16{bits}));
  loss = record.losses.empty() ? std::nan("") : loss / static_cast<double>(record.losses.size());
  last_.loss = std::isnan(loss) ? std::abs(std::nan("")) : loss;  // prints without a sign
}

/// Of the round's own votes, while they are counted in the newest unit.
void Replica::note_median(const Record& record) {
  if (header_.votes != VoteKind::byte || record.bytes.empty() || recent_.is_waiting()) return;
  std::vector<uint8_t> magnitudes;  // codes ascend with the values they stand for: a median of codes will do
  bool has_zero = false;
  for (const uint8_t byte : record.bytes) {
    if (byte == kInvalidVote) continue;
    const uint8_t magnitude = byte & 0x7f;
    if (header_.format() == 1 || magnitude != 0)
      magnitudes.push_back(magnitude);
    else
      has_zero = true;
  }
  // A round of nothing but zeros says that the unit is too large; zeros among others say little of the others.
  if (magnitudes.empty() && has_zero) magnitudes.push_back(0);
  if (!magnitudes.empty()) medians_.push_back(lower_median(std::move(magnitudes)));
  if (medians_.size() > kHistory) medians_.pop_front();
}

int Replica::proposed_unit() const {
  const int unit = recent_.announced();
  if (!header_.adapt_unit || recent_.is_waiting() || medians_.size() < kHistory) return unit;
  const int32_t median = decode_vote(lower_median(std::vector<uint8_t>(medians_.begin(), medians_.end())));
  if (median >= 16 && median <= 8192) return unit;  // the byte is about equally exact all over this range
  // Otherwise the typical vote moves to 256 .. 511 units, well inside.
  // A median of b bits times 2^(9 − b) has nine bits, 256 to 511. A unit that is too large shows zeros: four bits at
  // once.
  const int shift = median == 0 ? 4 : 8 - std::bit_width(static_cast<uint32_t>(median)) + 1;
  // The bounds that the run's header has to keep, too.
  return std::clamp(unit + shift, -20, 30);
}

StateDigest values_digest(const Context& ctx, const FlatParams& params, const TensorView& values, int64_t offset) {
  StateDigest digest;
  for (const TrainableSlot& slot : params.slots)
    digest += state_digest(ctx, values.slice_rows(slot.begin, slot.begin + slot.shape.count()), offset + slot.begin);
  return digest;
}

StateDigest Replica::digest(const Context& ctx) const {
  const int64_t count = params_.values.shape.count();
  StateDigest digest = values_digest(ctx, params_, params_.values, 0);
  int64_t offset = count;  // a vector's elements count on where those of the one before it end
  optimizer_->visit_state([&](const std::string&, const TensorView& vector) {
    digest += values_digest(ctx, params_, vector, offset);
    offset += count;
  });
  return digest;
}

void Replica::check_digest(const Context& ctx, const Record& record) {
  // Of an earlier round: its state is not here any more, and it was compared when the round was new.
  if (record.round != round_) return;
  const StateDigest mine = digest(ctx), theirs{record.digest[0], record.digest[1]};
  if (mine == theirs) {
    // Two are kept: the newest one may be of this very round.
    if (round_ > verified_[0]) verified_ = {round_, verified_[0]};
    return;
  }
  const std::string whose =
      record.type == RecordType::digest ? fmt::format("machine {}", record.machine) : "a snapshot";
  throw UserError(
      fmt::format("round {}", round_),
      fmt::format("this replica's weights differ from what the log says of {}: digest {} here, {} there", whose,
                  mine.text(), theirs.text()),
      fmt::format(
          "a machine's memory failed: start it again, so that it rebuilds its weights; when the difference stays, it "
          "is in the log, and job=replay replay.round={} replay.branch=FOLDER goes on from what was compared last{}",
          verified_[verified_[0] < round_ ? 0 : 1], who_may_lie(header_)));
}

int64_t Replica::state_bytes() const { return optimizer_->state_bytes() + (pool_ ? pool_->state_bytes() : 0); }

}  // namespace tessera
