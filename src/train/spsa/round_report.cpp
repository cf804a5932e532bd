#include "train/spsa/round_report.h"

#include <cmath>

#include "core/minifloat.h"
#include "train/spsa/round_notices.h"

namespace tessera {

StepReport report_of(const Replica& replica, const ReportedRound& told) {
  const RoundStats& round = replica.last();
  const double share = static_cast<double>(round.valid) / static_cast<double>(std::max<int64_t>(1, round.votes));
  StepReport result;
  result.loss = std::isnan(round.loss) ? told.loss_of_votes : round.loss;
  result.lr = rate_of_update(round, told.rate);
  const int64_t m = replica.header().m;
  result.rows = told.rows_of_machine * (round.votes / m);
  result.scored = told.scored_of_machine * round.votes / m;  // of this machine, as many of the others
  result.extra.set("votes", round.votes)
      .set("votes_valid", share)
      .set("votes_clipped", round.clipped)
      .set("votes_dropped", told.dropped)
      .set("vote_rms", round.vote_rms)
      .set("unit", int64_t{round.unit})
      .set("alpha", round.alpha)
      .set("bytes_up", told.now.up - told.before.up)
      .set("bytes_down", told.now.down - told.before.down);
  result.note = fmt::format("g {:.3g}  votes {}", round.vote_rms, round.votes);
  return result;
}

double mean_loss(const std::map<uint32_t, Vote>& votes) {
  double sum = 0, count = 0;
  for (const auto& [machine, vote] : votes)
    if (vote.loss) sum += static_cast<double>(to_float(Float16{*vote.loss})), ++count;
  return std::abs(sum / count);  // prints without a sign when it does not exist
}

}  // namespace tessera
