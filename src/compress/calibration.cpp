#include "compress/calibration.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/stop_together.h"
#include "core/error.h"
#include "score/forward.h"

namespace tessera {

void say_perplexity(const StageInputs& in, const std::string& point, double perplexity) {
  in.say(fmt::format("perplexity of the calibration rows, {:<9} {:.4f}", point, perplexity));
}

void require_calibration_rows(int64_t rows, const FoldConfig& fold, const KeyPlaces& where) {
  if (rows >= fold.calibration_rows) return;
  throw UserError(
      where.of("calibration_rows"),
      fmt::format("fold: {} calibration rows are asked for, data.train has {}", fold.calibration_rows, rows),
      "lower fold.calibration_rows or train.sequence_length, or give more data");
}

void require_calibration_rows(const StageInputs& in) {
  require_calibration_rows(in.data.rows(), in.fold, in.where_fold);
}

namespace {

/// sums += the values that a rank brought, if it had a row left.
void add_to(std::vector<double>& sums, const std::vector<std::byte>& bytes) {
  if (bytes.empty()) return;
  std::vector<double> values(bytes.size() / sizeof(double));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  if (sums.empty()) sums.assign(values.size(), 0.0);
  for (size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
}

}  // namespace

std::vector<double> sums_over_calibration_rows(const StageInputs& in, const std::string& doing,
                                               const std::function<std::vector<double>(const PackedBatch&)>& of_row) {
  require_calibration_rows(in);
  std::vector<double> total;
  // The ranks take rows in turn: what they bring at a time, in rank order, is in the order of the rows.
  for (int64_t first = 0; first < in.fold.calibration_rows; first += in.world.size()) {
    leave_together(in.world, in.stop_requested(), doing);
    std::vector<double> mine;
    if (const int64_t row = first + in.world.rank(); row < in.fold.calibration_rows) {
      const int64_t number = in.data.shuffled_row(row);
      const PackedBatch batch = in.data.batch({&number, 1}, row);
      mine = of_row(batch);
      mine.push_back(static_cast<double>(document_tokens(batch).size()));
    }
    for (const auto& bytes : in.world.all_gather(std::as_bytes(std::span(mine)))) add_to(total, bytes);
  }
  return total;
}

namespace {

/// `share` of the rows from place `first` on, `of_pass` at a time.
void for_each_pass(const StageInputs& in, int64_t first, RowShare share, int64_t of_pass,
                   const std::function<bool(const PackedBatch&)>& f) {
  const std::vector<int64_t> rows = step_rows(in.data, first, share);
  for (int64_t begin = 0; begin < static_cast<int64_t>(rows.size()); begin += of_pass) {
    const int64_t count = std::min(of_pass, static_cast<int64_t>(rows.size()) - begin);
    if (!f(in.data.batch(std::span(rows).subspan(begin, count), share.begin + begin))) return;
  }
}

}  // namespace

void for_each_pass(const StageInputs& in, int64_t first, int64_t rows,
                   const std::function<bool(const PackedBatch&)>& f) {
  for_each_pass(in, first, row_share(rows, in.share), rows_of_pass(in.train, rows, in.share.count), f);
}

void for_each_pass_of_all(const StageInputs& in, int64_t first, int64_t rows,
                          const std::function<void(const PackedBatch&)>& f) {
  for_each_pass(in, first, RowShare{0, rows}, rows_of_pass(in.train, rows, 1), [&](const PackedBatch& batch) {
    f(batch);
    return true;
  });
}

std::vector<int32_t> document_tokens(const PackedBatch& batch) {
  std::vector<int32_t> rows;
  for (const TokenRange& document : batch.documents)
    for (int64_t t = document.begin; t < document.end; ++t) rows.push_back(static_cast<int32_t>(t));
  return rows;
}

double calibration_loss(const StageInputs& in, Model& model, const BlockGates& gates) {
  LossSums sums;
  bool is_left = false;
  for_each_pass(in, 0, in.fold.calibration_rows, [&](const PackedBatch& batch) {
    if ((is_left = in.stop_requested())) return false;
    sums = score_batch(in.ctx, model, batch, {}, gates, std::move(sums));
    return true;
  });
  leave_together(in.world, is_left, "measuring the loss of gates");
  const std::vector<double> all = sum_over_ranks(in.world, {sums["nll"], sums["scored"]});
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
