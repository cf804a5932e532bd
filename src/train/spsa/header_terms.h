#pragma once
// What a header of format 2 holds beside what one of format 1 does: terms that machines which have nothing but the log
// in common have to agree on. A header is written so where one of them is needed, and otherwise as ever.

#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/rules.h"
#include "train/train_config.h"

namespace tessera {

/// How the votes v of one seed round and probe become one integer q, after clipping. With directions = "shared" all
/// machines try the same, and their votes can be compared; all others add them.
///   sum      q = Σ v
///   median   q = the sum of the two middle votes, of an odd number twice the middle one
///   trimmed  q = trunc(2 Σ rest / count of the rest), without the k largest and the k smallest,
///            k = ⌊count · percent / 100⌋
/// The last two count in half units, and their n is the number of probes that have a valid vote: all three take the
/// same step where votes agree.
enum class Aggregate { sum, median, trimmed };

struct HeaderTerms {
  Aggregate aggregate = Aggregate::sum;
  int64_t trim_percent = 10;
  /// The rate: that of step t + 1 of `rounds` for round t, with which every packer has to come.
  OptimizerConfig rate;  // of it lr, schedule, warmup_steps, final_ratio and weight_decay
  int64_t rounds = 1;    // the run ends behind so many
  struct Privacy {
    double clip = 0, delta = 0, epsilon = 0;
  };
  std::optional<Privacy> privacy;
  std::vector<std::string>
      signers;  // Ed25519 public keys as hexadecimal digits, ascending; none: records are not signed

  /// No honest packer passes it: rates are lr at most, a unit is 2^20 at most, and a round has one vote at least.
  double alpha_max() const { return rate.lr * 0x1p20; }
  bool is_robust() const { return aggregate != Aggregate::sum; }
  /// Learning rate and decay factor of a round.
  std::pair<float, float> rate_of(uint32_t round, Rules) const;
};

/// The terms' own members of a header.
Json::Object members_of(const HeaderTerms&);
/// @throws UserError, without a place, for what is missing or out of its range
HeaderTerms terms_of(const Json& header);

}  // namespace tessera
