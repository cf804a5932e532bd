#pragma once
// Replicas of a small pool, and records of rounds for them.

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "support/tiny_model.h"
#include "train/spsa/packer.h"
#include "train/spsa/replica.h"
#include "train/spsa/vote_codec.h"

namespace tessera::test {

/// A pool of a few slots, without a model around it.
struct OwnPool {
  explicit OwnPool(uint64_t seed = 4) {
    pool.reserve("a", {.shape = {37, 11}, .init = {Init::Kind::normal, 0.1, {}}});
    pool.reserve("b", {.shape = {130}, .init = {Init::Kind::ones, 0, {}}, .weight_decay = false});
    pool.reserve("c", {.shape = {3, 300}, .init = {Init::Kind::normal, 1, {}}, .step_scale = 4});
    pool.allocate(seed, ParameterPool::Gradients::no);
  }
  ParameterPool pool;
  FlatParams& params() { return pool.trainable(); }
  std::string bytes() {
    return {static_cast<const char*>(params().values.data), static_cast<size_t>(params().values.bytes())};
  }
};

inline RunHeader header_of(OwnPool& pool, Family family = Family::independent, int64_t lanes = 0) {
  RunHeader h;
  h.manifest = manifest_of(pool.params());
  h.seed = 0x1234567855aa55aaull;
  h.eps = 1e-3;
  h.m = 3;
  h.family = family;
  h.lanes = lanes;
  return h;
}

/// Records of rounds with random votes of four machines, one of them missing now and then.
inline std::vector<Record> random_rounds(const RunHeader& header, OwnPool& start, int rounds, float lr = 1e-3f,
                                         float mul = 1.0f) {
  OwnPool own;
  std::memcpy(own.params().values.mutable_data(), start.params().values.data,
              static_cast<size_t>(own.params().values.bytes()));
  Replica replica(header, own.params());
  const OwnContext context;
  std::mt19937 random(7);
  std::vector<Record> records;
  ChainTip tip;
  for (int t = 0; t < rounds; ++t) {
    std::map<uint32_t, Vote> votes;
    for (uint32_t machine = 0; machine < 4; ++machine) {
      if (t > 0 && random() % 5 == 0) continue;
      Vote vote;
      for (int64_t s = 0; s < header.m; ++s)
        write_vote(header, random() % 17 == 0 ? std::nan("") : std::normal_distribution<double>(0, 3)(random),
                   replica.unit(), replica.round(), machine, static_cast<uint16_t>(s), vote.bytes);
      votes[machine] = vote;
    }
    records.push_back(pack_round(replica, {}, tip, votes, 4, {lr, mul}));
    tip.advance(encode(records.back()));
    replica.apply(context.ctx, records.back());
  }
  return records;
}

inline std::string replayed(const RunHeader& header, const std::vector<Record>& records, const Context& ctx,
                            bool together) {
  OwnPool own;
  Replica replica(header, own.params());
  if (together)
    replica.apply(ctx, records);
  else
    for (const Record& record : records) replica.apply(ctx, record);
  return own.bytes() + replica.digest(ctx).text();
}

struct Kind {
  std::string name;
  Family family;
  int64_t lanes;
  std::string optimizer;
  double momentum;
  float mul;
  VoteKind votes = VoteKind::byte;
};
inline void PrintTo(const Kind& k, std::ostream* out) { *out << k.name; }

class ReplicaOf : public testing::TestWithParam<Kind> {
 protected:
  RunHeader header() {
    RunHeader h = header_of(start_, GetParam().family, GetParam().lanes);
    h.optimizer = GetParam().optimizer;
    h.momentum = GetParam().momentum;
    h.votes = GetParam().votes;
    return h;
  }
  std::vector<Record> rounds(int count) { return random_rounds(header(), start_, count, 1e-3f, GetParam().mul); }
  OwnPool start_;
};

inline const Kind kStepping[] = {{"independent", Family::independent, 0, "sgd", 0, 1},
                                 {"shared", Family::shared, 0, "sgd", 0, 1},
                                 {"pool", Family::pool, 64, "sgd", 0, 1},
                                 {"hadamard", Family::hadamard, 16, "sgd", 0, 1},
                                 {"hadamard_many", Family::hadamard, 4, "sgd", 0, 1},
                                 {"momentum_hadamard", Family::hadamard, 16, "sgd", 0.5, 1},
                                 {"float32", Family::independent, 0, "sgd", 0, 1, VoteKind::float32}};
inline const Kind kOthers[] = {{"decay", Family::independent, 0, "sgd", 0, 0.999f},
                               {"momentum", Family::independent, 0, "sgd", 0.9, 0.9999f},
                               {"adam", Family::independent, 0, "adamw", 0, 0.999f},
                               {"sign", Family::independent, 0, "sgd", 0, 1, VoteKind::sign}};
inline const auto name_of_kind = [](const auto& info) { return info.param.name; };

}  // namespace tessera::test
