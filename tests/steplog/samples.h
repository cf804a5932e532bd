#pragma once
// Votes and records to test with.

#include <cstdint>

#include "core/error.h"
#include "steplog/chain_rules.h"

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
    record.unit_exp = static_cast<int8_t>(rules.rounds().announced());
    return record;
  }
  /// Its bytes; the chain goes on behind it.
  Bytes add(const Record& record) { return accepted(record, encode(record)); }
  /// The same, signed by the key at this place of the header's list.
  Bytes add_signed(const Record& record, const SigningKey& key, uint8_t place) {
    const Bytes encoded = encode_signed(record, run_, key, place);
    return accepted(std::get<Record>(decode_record(encoded)), encoded);
  }

  ChainRules rules;
  Dice dice{1};

 private:
  Bytes accepted(const Record& record, Bytes encoded) {
    if (const auto why = rules.refuses(record)) throw UserError("", why->rule, why->detail);
    rules.accept(record, encoded);
    return encoded;
  }
  static ChainRules::Limits with(ChainRules::Limits limits, RunId run) {
    limits.run = run;
    return limits;
  }
  RunId run_;
};

/// The private keys of RFC 8032, section 7.1, tests 1 to 3, in the order of their public keys.
inline std::vector<SigningKey> rfc_keys() {
  std::vector<SigningKey> keys;
  for (const char* seed : {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                           "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                           "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"})
    keys.push_back(SigningKey::of_seed(parse_public_key(seed)));  // as many digits as a key that is public
  return keys;
}
inline std::vector<PublicKey> public_keys(const std::vector<SigningKey>& keys) {
  std::vector<PublicKey> all;
  for (const SigningKey& key : keys) all.push_back(key.public_key());
  return all;
}

inline Bytes bytes_of(std::initializer_list<int> values) {
  Bytes bytes;
  for (int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

}  // namespace tessera::test
