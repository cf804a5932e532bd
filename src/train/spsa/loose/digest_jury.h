#pragma once
// Whose weights are right, when machines tell digests of theirs: those of more than half.

#include <optional>
#include <vector>

#include "train/spsa/packer.h"

namespace tessera {

struct DigestJury {
  int64_t told = 0;                 // votes with a digest
  std::optional<StateDigest> most;  // what more than half of these name
  std::vector<uint32_t> others;     // machines that name another
};
DigestJury jury_of(const RoundVotes::ByMachine& votes);

}  // namespace tessera
