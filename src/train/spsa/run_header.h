#pragma once
// What all replicas of a run agree on for its whole life. Its text is the log's header.json;
// the text's SHA-256 names the run.

#include <string>

#include "core/direction.h"
#include "core/rules.h"
#include "model/parameter_pool.h"
#include "train/spsa/header_terms.h"
#include "train/spsa/spsa_config.h"
#include "train/train_config.h"

namespace tessera {

enum class VoteKind { byte, sign, float32 };
enum class Family { independent, shared, pool, hadamard };

struct RunHeader {
  std::string base;                   // hash of the frozen weights; empty when all are trained
  std::string selection;              // what is trained: the adapter's descriptor, or "all"
  std::string start;                  // digest of the trained values before round 0
  std::vector<std::string> manifest;  // one line a tensor: name, shape, start, decay, step scale
  uint64_t seed = 0;
  // Of f32, as kernels add it; kept as a double.
  double eps = 0;
  int unit = 9;
  bool adapt_unit = true;
  int64_t m = 1;      // probes of a machine in a round
  int64_t lanes = 0;  // K of the Hadamard family or of the seed pool, else 0
  int64_t clip = 8, stale_max = 0, digest_every = 256;
  VoteKind votes = VoteKind::byte;
  Family family = Family::independent;
  // Of the optimizer what replicas compute with. The rate is not here: it comes with each round, in alpha.
  std::string optimizer = "sgd";
  double momentum = 0, beta1 = 0.9, beta2 = 0.999, adam_eps = 1e-8;
  std::string parent;  // a branch: the run and round it was cut from
  Rules rules = Rules::first;
  std::optional<HeaderTerms> terms;  // those of format 2; a header without them has format 1

  int format() const { return terms ? 2 : 1; }
  /// How many rounds late a vote may count: by format 1 a late one would be of whoever has its lane today.
  int late_rounds() const { return terms ? static_cast<int>(stale_max) : 0; }
  bool is_robust() const { return terms && terms->is_robust(); }
  /// Bytes a probe takes in votes and records.
  int64_t bytes_per_probe() const { return votes == VoteKind::float32 ? 4 : 1; }
  /// What the votes' integers are multiples of: 2^-unit, of float32 votes 2^-14.
  int unit_of(int unit_exp) const { return votes == VoteKind::float32 ? 14 : unit_exp; }
  /// The same of the integers that move the weights, which robust aggregates count in halves.
  int step_unit_of(int unit_exp) const { return unit_of(unit_exp) + (is_robust() ? 1 : 0); }
  /// Canonical JSON: keys in order, floats as the hexadecimal of their bits; no "rules" where they are the first. In
  /// format 2 keys are in the order of their bytes.
  std::string text() const;
  static RunHeader parse(const std::string& text, const std::string& where);
};

/// One line a trainable slot, in the order of the pool.
std::vector<std::string> manifest_of(const FlatParams&);

/// @throws UserError naming the first tensor that differs
void require_same_manifest(const RunHeader&, const FlatParams&, const std::string& where);

/// The direction of probe `sample` of `machine` in a round.
/// `lane` counts machines that are present, for the Hadamard family.
Direction direction_of(const RunHeader&, uint32_t round, uint32_t machine, uint32_t lane, uint16_t sample);

}  // namespace tessera
