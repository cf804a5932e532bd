#include "compress/calibration.h"

#include <algorithm>

#include "comm/stop_together.h"
#include "core/error.h"
#include "score/forward.h"

namespace tessera {

void require_calibration_rows(const StageInputs& in) {
  if (in.data.rows() >= in.fold.calibration_rows) return;
  throw UserError(in.where_fold.of("calibration_rows"),
                  fmt::format("fold: {} calibration rows are asked for, data.train has {}", in.fold.calibration_rows,
                              in.data.rows()),
                  "lower fold.calibration_rows or train.sequence_length, or give more data");
}

RowShare calibration_share(const StageInputs& in) { return row_share(in.fold.calibration_rows, in.share); }

std::vector<int32_t> document_tokens(const PackedBatch& batch) {
  std::vector<int32_t> rows;
  for (const TokenRange& document : batch.documents)
    for (int64_t t = document.begin; t < document.end; ++t) rows.push_back(static_cast<int32_t>(t));
  return rows;
}

double calibration_loss(const StageInputs& in, Model& model, const BlockGates& gates) {
  const RowShare share = calibration_share(in);
  const std::vector<int64_t> rows = step_rows(in.data, 0, share);
  const int64_t of_pass = rows_of_pass(in.train, in.fold.calibration_rows, in.share.count);
  double nll = 0, scored = 0;
  bool is_left = false;
  for (int64_t begin = 0; begin < static_cast<int64_t>(rows.size()); begin += of_pass) {
    if ((is_left = in.stop_requested())) break;
    const int64_t count = std::min(of_pass, static_cast<int64_t>(rows.size()) - begin);
    const PackedBatch batch = in.data.batch(std::span(rows).subspan(begin, count), share.begin + begin);
    const LossSums sums = score_batch(in.ctx, model, batch, {}, gates);
    nll += sums["nll"];
    scored += sums["scored"];
  }
  leave_together(in.world, is_left, "measuring the loss of gates");
  const std::vector<double> all = sum_over_ranks(in.world, {nll, scored});
  return all[0] / all[1];
}

int64_t plan_calibration_bytes(const StageSizes& sizes, Model& model) {
  const std::vector<double> ones(2 * static_cast<size_t>(model.decoder().num_layers()), 1.0);
  const int64_t rows = rows_of_pass(sizes.train, sizes.fold.calibration_rows, sizes.ranks);
  return plan_widest(rows, sizes.train.sequence_length, model.pool().device(), sizes.threads,
                     [&](const Context& ctx, const PackedBatch& batch) {
                       score_batch(ctx, model, batch, {}, {BlockGates::Of::sublayers, ones});
                     });
}

}  // namespace tessera
