#pragma once
// Who takes part in a shared-seed run. A transport says so, and it may change while the run lasts:
// ask again in every round.

#include <cstdint>
#include <memory>

namespace tessera {

class Membership {
 public:
  virtual ~Membership() = default;
  /// This machine's number: its seeds are drawn from it, and it is its lane in the records of rounds.
  virtual uint32_t machine() const = 0;
  /// How many take part now, numbered from 0: a round has all votes when it has as many.
  virtual uint32_t machines() const = 0;
};

/// A process as its job counts it, and as the recipe does. Each transport goes by one of the two. Ranks count as the
/// data's shares do (DataShare): ranks that read the same rows are one machine, and their equal votes count once.
struct Standing {
  int rank = 0, ranks = 1;
  int64_t machine = 0, machines = 1;
};

/// The same machines from the first round to the last.
std::unique_ptr<Membership> fixed_membership(int64_t machine, int64_t machines);

}  // namespace tessera
