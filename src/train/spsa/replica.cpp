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

constexpr size_t kHistory = 64;          // rounds that the unit is judged by
constexpr int64_t kChunk = 1 << 16;      // weights whose gradient is in memory at once
constexpr size_t kMostByteVotes = 8192;  // of a group: |sum| stays below 2^31, since a byte's value is below 2^18
// Of 2^23 at most each: their sum stays within 2^30.
constexpr size_t kMostFloatVotes = 128;

/// Decay is no part of it: a round's record says how much (`mul`), for every optimizer.
OptimizerConfig optimizer_of(const RunHeader& h) {
  return {.name = h.optimizer,
          .beta1 = h.beta1,
          .beta2 = h.beta2,
          .eps = h.adam_eps,
          .weight_decay = 0,
          .momentum = h.momentum};
}

/// The `rank`-th smallest by value; order of the input does not matter.
template <class T> T lower_median(std::vector<T> values) {
  const auto middle = values.begin() + static_cast<int64_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

Replica::Replica(RunHeader header, FlatParams& params)
    : header_(std::move(header)),
      params_(params),
      unit_(header_.unit),
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
  for (const RosterChange& change : record.roster) {
    if (roster_.size() <= change.lane) roster_.resize(change.lane + 1);
    roster_[change.lane] = change.add ? std::optional(change.machine) : std::nullopt;
  }
  // Lanes are as many as the record says, free ones at the end included.
  roster_.resize(record.lanes);
  last_ = {};
  last_.alpha = record.alpha;
  last_.unit = header_.unit_of(unit_);
}

std::vector<Replica::Group> Replica::groups_of(const Record& record) {
  std::vector<Group> groups;
  add_groups(record, record.seed_round, record.alpha, record.present, record.bytes, groups);
  for (const ExtraGroup& extra : record.extra)
    add_groups(record, extra.seed_round, extra.alpha, extra.present, extra.bytes, groups);
  // The decay belongs to the round, not to each of its groups.
  for (size_t g = 0; g < groups.size(); ++g) groups[g].view.mul = g == 0 ? record.mul : 1.0f;
  return groups;
}

void Replica::add_groups(const Record& record, uint32_t seed_round, float alpha, const std::vector<bool>& present,
                         std::span<const uint8_t> bytes, std::vector<Group>& groups) {
  const auto width = static_cast<size_t>(header_.bytes_per_probe());
  const size_t probes = record.m / width;
  const bool hadamard = header_.family == Family::hadamard;
  const size_t most = hadamard                             ? static_cast<size_t>(header_.lanes)
                      : header_.votes == VoteKind::float32 ? kMostFloatVotes
                                                           : kMostByteVotes;
  Group group;
  const auto close = [&](uint32_t number) {
    clip(group.votes);
    bound(group.votes);
    finish_group(seed_round, number, group);
    group.view.alpha = alpha;
    groups.push_back(std::move(group));
    group = {};
  };
  double squares = 0;
  uint32_t number = 0;
  size_t place = 0;
  // Bytes stand for the lanes that are present alone, in ascending order.
  for (uint32_t lane = 0; lane < present.size(); ++lane) {
    if (!present[lane]) continue;
    for (size_t s = 0; s < probes; ++s, bytes = bytes.subspan(width)) {
      const Direction z = direction_of(header_, seed_round, *roster_[lane], lane, static_cast<uint16_t>(s));
      // A Hadamard group is the one its lanes belong to; other groups are cut by count.
      if (hadamard ? z.sample != number : place == most) {
        close(number);
        number = hadamard ? z.sample : number + 1;
        place = 0;
      }
      ++place;
      ++last_.votes;
      const auto value = read_vote(header_, bytes.first(width));
      // An invalid vote counts as told, and moves nothing.
      if (!value) continue;
      ++last_.valid;
      squares += static_cast<double>(*value) * *value;
      // A Hadamard vote is known by its lane alone; the group has one direction of signs for all of them.
      group.votes.push_back(hadamard ? VoteTerm{z.lane, 0, *value} : VoteTerm{z.machine, z.sample, *value});
    }
  }
  // Also where nobody voted: the first group carries the round's decay.
  close(number);
  if (last_.valid > 0 && seed_round == record.seed_round)
    last_.vote_rms = std::ldexp(std::sqrt(squares / static_cast<double>(last_.valid)), -last_.unit);
}

/// A single wild loss may not move the weights alone: votes are cut at a multiple of the group's median. From 8 votes
/// on; of fewer the median says little.
void Replica::clip(std::span<VoteTerm> votes) {
  if (header_.clip == 0 || votes.size() < 8) return;
  // Integers and their lower median: no order of machines and no rounding can show in the limit.
  std::vector<int64_t> magnitudes;
  for (const VoteTerm& vote : votes) magnitudes.push_back(std::abs(int64_t{vote.value}));
  const int64_t limit = header_.clip * lower_median(std::move(magnitudes));
  for (VoteTerm& vote : votes) {
    if (std::abs(int64_t{vote.value}) <= limit) continue;
    vote.value = static_cast<int32_t>(vote.value > 0 ? limit : -limit);
    ++last_.clipped;
  }
}

/// Keeps the sum of a Hadamard group of float32 votes, which cannot be cut by count, within 31 bits.
void Replica::bound(std::span<VoteTerm> votes) {
  if (votes.size() <= kMostFloatVotes || header_.votes != VoteKind::float32) return;
  // So small that even equal signs everywhere keep the sum in 31 bits.
  const auto limit = static_cast<int32_t>(INT32_MAX / static_cast<int64_t>(votes.size()));
  for (VoteTerm& vote : votes) {
    const int32_t kept = std::clamp(vote.value, -limit, limit);
    last_.clipped += kept != vote.value;
    vote.value = kept;
  }
}

void Replica::finish_group(uint32_t seed_round, uint32_t number, Group& group) const {
  VoteGroup& view = group.view;
  view.seed = header_.seed;
  view.round = header_.family == Family::pool ? 0 : seed_round;
  // Lane k is a row of the Hadamard matrix H times one common sign vector: Σ_k v_k z_k = (H v) · signs. One transform
  // of the votes, and an update costs a single direction however many voted.
  if (header_.family == Family::hadamard) {
    group.transformed.assign(static_cast<size_t>(header_.lanes), 0);
    for (const VoteTerm& vote : group.votes) group.transformed[vote.machine] += vote.value;
    hadamard_transform(group.transformed);
    view.signs = {
        .seed = header_.seed, .round = seed_round, .machine = kHadamardStream, .sample = static_cast<uint16_t>(number)};
  }
}

namespace {

/// A group as the kernels take it. The spans point into `group`, which must stay where it is.
template <class Group> VoteGroup kernel_group(const Group& group, const TrainableSlot& slot) {
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

/// grads = Σ_groups s_group · A_group, chunk by chunk; s = 2^-unit / n with the n of each group's round and seed.
void Replica::update_with_gradients(const Context& ctx, const Record& record, std::span<const Group> groups) {
  // By what the record's own bytes say, not by who is there now: every replica counts the same.
  const int64_t n = std::max<int64_t>(1, valid_votes(header_, record.bytes));
  const float s = std::ldexp(1.0f, -header_.unit_of(unit_)) / static_cast<float>(n);
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
        // A group with an alpha of its own, such as late votes, weighs as much as that says in relation to the round's.
        const float weight = group.view.alpha == record.alpha ? s : s * (group.view.alpha / record.alpha);
        add_integers(ctx, a, weight, g);
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
  if (header_.votes == VoteKind::byte && !record.bytes.empty()) {
    std::vector<uint8_t> magnitudes;  // codes ascend with the values they stand for: a median of codes will do
    for (const uint8_t byte : record.bytes)
      if (byte != kInvalidVote) magnitudes.push_back(byte & 0x7f);
    if (!magnitudes.empty()) medians_.push_back(lower_median(std::move(magnitudes)));
    if (medians_.size() > kHistory) medians_.pop_front();
  }
  // A new unit: medians so far were counted in the old one.
  if (record.unit_exp != unit_) {
    unit_ = record.unit_exp;
    medians_.clear();
  }
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

int Replica::proposed_unit() const {
  if (!header_.adapt_unit || medians_.size() < kHistory) return unit_;
  const int32_t median = decode_vote(lower_median(std::vector<uint8_t>(medians_.begin(), medians_.end())));
  if (median >= 16 && median <= 8192) return unit_;  // the byte is about equally exact all over this range
  // Otherwise the typical vote moves to 256 .. 511 units, well inside.
  // A median of b bits times 2^(9 − b) has nine bits, 256 to 511. A unit that is too large shows zeros: four bits at
  // once.
  const int shift = median == 0 ? 4 : 8 - std::bit_width(static_cast<uint32_t>(median)) + 1;
  // The bounds that the run's header has to keep, too.
  return std::clamp(unit_ + shift, -20, 30);
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
  throw UserError(
      fmt::format("round {}", round_),
      fmt::format("this replica's weights differ from what the log says of machine {}: digest {} here, {} there",
                  record.machine, mine.text(), theirs.text()),
      fmt::format(
          "a machine's memory failed: start it again, so that it rebuilds its weights; when the difference stays, it "
          "is in the log, and job=replay replay.round={} replay.branch=FOLDER goes on from what was compared last",
          verified_[verified_[0] < round_ ? 0 : 1]));
}

int64_t Replica::state_bytes() const { return optimizer_->state_bytes() + (pool_ ? pool_->state_bytes() : 0); }

}  // namespace tessera
