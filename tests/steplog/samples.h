#pragma once
// Votes and records to test with.

#include <cstdint>

#include "core/error.h"
#include "steplog/record.h"

namespace tessera::test {

inline const std::string kHeader = R"({"format": 1, "eps": "3a83126f", "privacy": {"clip": 8}})";

/// A short stream of random numbers of a seed.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint64_t next() {  // splitmix64
    uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return next() % n; }
  bool coin() { return next() & 1; }
  std::vector<uint8_t> bytes(size_t count) {
    std::vector<uint8_t> all(count);
    for (uint8_t& byte : all) byte = static_cast<uint8_t>(next());
    return all;
  }

 private:
  uint64_t state_;
};

/// Makes records that follow one another.
class Chain {
 public:
  explicit Chain(RunId run, ChainRules::Limits limits = {}) : rules(with(limits, run)), run_(run) {}

  /// The next round: every lane of the roster votes m random bytes.
  Record round(uint8_t m = 4) {
    Record record = next(RecordType::round);
    record.alpha = -1e-3f * static_cast<float>(1 + dice.below(1000));
    record.m = m;
    record.lanes = static_cast<uint16_t>(rules.roster().size());
    record.present.assign(record.lanes, true);
    record.bytes = dice.bytes(size_t{record.lanes} * m);
    return record;
  }
  /// The next round, in which machines 0 .. n-1 join and vote.
  Record first_round(uint32_t machines, uint8_t m = 4) {
    Record record = round(m);
    for (uint32_t i = 0; i < machines; ++i) record.roster.push_back({i, true, i});
    record.lanes = static_cast<uint16_t>(machines);
    record.present.assign(machines, true);
    record.bytes = dice.bytes(size_t{machines} * m);
    return record;
  }
  Record next(RecordType type) {
    Record record;
    record.type = type;
    record.run = run_.prefix();
    record.round = record.seed_round = rules.next_round();
    record.index = rules.next_index();
    record.prev = rules.prev();
    return record;
  }
  /// Its bytes; the chain goes on behind it.
  Bytes add(const Record& record) {
    const Bytes encoded = encode(record);
    if (const auto why = rules.refuses(record)) throw UserError("", why->rule, why->detail);
    rules.accept(record, encoded);
    return encoded;
  }

  ChainRules rules;
  Dice dice{1};

 private:
  static ChainRules::Limits with(ChainRules::Limits limits, RunId run) {
    limits.run = run;
    return limits;
  }
  RunId run_;
};

inline Bytes bytes_of(std::initializer_list<int> values) {
  Bytes bytes;
  for (int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

}  // namespace tessera::test
