#include "train/spsa/loose/digest_jury.h"

namespace tessera {

DigestJury jury_of(const RoundVotes::ByMachine& votes) {
  std::map<std::pair<uint64_t, uint64_t>, int64_t> named;
  const auto key_of = [](const Vote& vote) { return std::pair((*vote.digest)[0], (*vote.digest)[1]); };
  DigestJury jury;
  for (const auto& [machine, vote] : votes)
    if (vote.digest) ++named[key_of(vote)], ++jury.told;
  for (const auto& [digest, count] : named)
    if (2 * count > jury.told) jury.most = StateDigest{digest.first, digest.second};
  if (!jury.most) return jury;
  for (const auto& [machine, vote] : votes)
    if (vote.digest && key_of(vote) != std::pair(jury.most->sum, jury.most->check)) jury.others.push_back(machine);
  return jury;
}

}  // namespace tessera
