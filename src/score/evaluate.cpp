// Ranks score their own rows and only sums are exchanged: a figure is the quotient of two sums over all rows, never a
// mean of ranks' means.

#include "score/evaluate.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/stop_together.h"
#include "kernels/rounding.h"

namespace tessera {
namespace {

LossSums summed(Communicator& world, LossSums sums) {
  const auto mine = sums.values();
  const std::vector<double> all = sum_over_ranks(world, {mine.begin(), mine.end()});
  std::copy(all.begin(), all.end(), mine.begin());
  return sums;
}

/// The pieces of cut documents that the ranks found, together on every rank.
void gather_cut_completions(Communicator& world, LossSums& sums) {
  std::vector<int64_t> mine;
  // Three integers a piece: bytes for the all-gather.
  for (const CutCompletion& piece : sums.cut) mine.insert(mine.end(), {piece.document, piece.pieces, piece.exact});
  sums.cut.clear();
  for (const auto& bytes : world.all_gather(std::as_bytes(std::span(mine)))) {
    if (bytes.empty()) continue;
    std::vector<int64_t> numbers(bytes.size() / sizeof(int64_t));
    std::memcpy(numbers.data(), bytes.data(), bytes.size());
    for (size_t i = 0; i + 2 < numbers.size(); i += 3)
      sums.cut.push_back({numbers[i], static_cast<int32_t>(numbers[i + 1]), numbers[i + 2] != 0});
  }
}

}  // namespace

LossSums evaluate(const Context& ctx, Model& model, const PackedDataset& data, Communicator& world,
                  const DataShare& mine, int64_t micro_batch, int64_t rows, const std::function<bool()>& stop) {
  require_exact_rounding(ctx);
  const int64_t total = rows > 0 ? std::min(rows, data.rows()) : data.rows();
  const RowShare share = row_share(total, mine);
  LossSums sums;
  bool is_left = false;
  for (int64_t begin = share.begin; begin < share.end; begin += micro_batch) {
    // Asked between batches: a pass is never cut short.
    if ((is_left = stop && stop())) break;
    std::vector<int64_t> numbers;
    for (int64_t row = begin; row < std::min(begin + micro_batch, share.end); ++row) numbers.push_back(row);
    sums = score_batch(ctx, model, data.batch(numbers, begin), {}, {}, std::move(sums));
  }
  // All ranks come here, who left and who finished: they leave together, or nobody does.
  leave_together(world, is_left, "evaluating");
  // Ranks that hold the same rows have the same sums: one of them brings these in.
  if (!mine.leads()) sums = {};
  // Pieces of one document may have been scored by different ranks.
  gather_cut_completions(world, sums);
  sums = summed(world, sums);
  sums.count_cut_completions();
  return sums;
}

}  // namespace tessera
