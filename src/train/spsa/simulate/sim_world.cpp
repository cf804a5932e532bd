#include "train/spsa/simulate/sim_world.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/minifloat.h"
#include "io/files.h"
#include "train/spsa/simulate/sim_draws.h"

namespace tessera {
namespace {

LinkTerms terms_of(const SimulateConfig& config) {
  return {.latency = sim_time(config.latency_ms * 1e-3),
          .jitter = sim_time(config.jitter_ms * 1e-3),
          .loss = config.loss,
          .bytes_per_second = config.rate_mbit * 1e6 / 8};
}

uint64_t seed_of(const SimulateConfig& config) { return static_cast<uint64_t>(config.seed); }

RunId run_of(const RunHeader& header) {
  const std::string text = header.text();
  return {sha256(std::as_bytes(std::span(text)))};
}

std::unordered_set<uint32_t> whole_places(int64_t nodes) {
  std::unordered_set<uint32_t> places;
  const int64_t count = std::min(nodes, kWholeNodes);
  for (int64_t k = 0; k < count; ++k) places.insert(static_cast<uint32_t>(k * nodes / count));
  return places;
}

/// The places whose hashes are the smallest.
std::unordered_set<uint32_t> hostile_places(int64_t nodes, const SimulateConfig& config) {
  std::vector<std::pair<uint64_t, uint32_t>> hashes;
  for (uint32_t place = 0; place < static_cast<uint32_t>(nodes); ++place)
    hashes.emplace_back(sim_key(seed_of(config), place, SimDraw::hostile), place);
  std::ranges::sort(hashes);
  std::unordered_set<uint32_t> places;
  // The share as it was written: 0.3 of 10 is 3, though the product is a little less.
  const auto count = static_cast<size_t>(std::floor(config.hostile * static_cast<double>(nodes) + 1e-9));
  for (size_t k = 0; k < count; ++k) places.insert(hashes[k].second);
  return places;
}

/// The sign bit of each byte; of float32 votes that of each number.
void turn_signs(const RunHeader& header, std::vector<uint8_t>& bytes) {
  const auto width = static_cast<size_t>(header.bytes_per_probe());
  for (size_t i = width - 1; i < bytes.size(); i += width) bytes[i] ^= 0x80;
}

}  // namespace

bool DigestComparison::compare(uint32_t round, const StateDigest& digest) {
  const bool is_equal = expected_.at(round) == digest;
  ++compared_;
  different_ += !is_equal;
  return is_equal;
}

SimWorld::SimWorld(const SimInputs& inputs, int64_t nodes)
    : in(inputs),
      run(run_of(in.header)),
      star(queue, terms_of(in.config), seed_of(in.config), nodes),
      shared(in.ctx, in.header, in.start),
      whole(whole_places(nodes)),
      hostile(hostile_places(nodes, in.config)) {}

uint32_t SimWorld::draw_number(uint64_t key) {
  for (uint64_t k = 0;; ++k) {
    const auto number = static_cast<uint32_t>(mix64(key + k * kGamma64) >> 32);
    if (number < kReservedMachines && numbers_.insert(number).second) return number;
  }
}

Vote SimWorld::vote_of(uint32_t place, uint32_t machine, uint32_t round, uint8_t lag, const Measured& found) const {
  Vote vote;
  vote.run = run.prefix();
  vote.seed_round = round;
  vote.machine = machine;
  vote.lag = lag;
  vote.bytes = found.bytes;
  if (is_hostile(place)) turn_signs(in.header, vote.bytes);
  vote.loss = to_float16(static_cast<float>(found.loss)).bits;
  return vote;
}

bool SimWorld::digest_due(uint32_t round) const {
  return round > 0 && round % static_cast<uint32_t>(in.header.digest_every) == 0;
}

bool SimWorld::measures_ahead(uint32_t round) const {
  return in.spsa.loose.ahead && in.header.stale_max > 0 && round + 1 < rounds() && !digest_due(round + 1);
}

SimTime SimWorld::time_to_measure() const {
  const auto m = static_cast<double>(in.header.m);
  return sim_time(in.config.forward_seconds * (in.spsa.sides == "one" ? m + 1 : 2 * m));
}

SimTime SimWorld::time_of_probe() const {
  return in.spsa.sides == "one" ? time_to_measure() : sim_time(2 * in.config.forward_seconds);
}

SimNode::SimNode(SimWorld& world, uint32_t place, uint64_t life)
    : world_(world), place_(place), life_(life), came_(world.queue.now()) {}

SimNode::~SimNode() { world_.star.disconnect(place_); }

void SimNode::later(SimTime at, EventQueue::Kind kind, std::function<void()> what) {
  world_.queue.add(at, place_, kind, [alive = std::weak_ptr(alive_), what = std::move(what)] {
    if (!alive.expired()) what();
  });
}

std::string SimNode::name() const { return fmt::format("node-{}-{}", place_, life_); }

uint64_t SimNode::number_key() const { return sim_key(seed_of(world_.in.config), place_, SimDraw::number, life_); }

void SimNode::note_vote() {
  if (!has_voted_ && life_ > 0) world_.catch_up.push_back(world_.queue.now() - came_);
  has_voted_ = true;
}

}  // namespace tessera
