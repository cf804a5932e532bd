#include "cli/written.h"

#include <algorithm>

#include "cli/model_settings.h"
#include "kernels/table.h"
#include "score/evaluate.h"
#include "train/steps.h"

namespace tessera {
namespace {

/// A dense model in a folder, over the rows that the run's own evaluations read.
LossSums evaluate_folder(const JobInputs& in, const Context& ctx, const PackedDataset& eval, Communicator& world,
                         const DataShare& share, const std::filesystem::path& folder) {
  const TrainConfig& train = in.config.trainer.train;
  Model::Settings settings = model_settings(in, train.sequence_length);
  settings.model.path = folder;
  settings.model.init = "pretrained";
  settings.sharing = {};
  settings.adapter = {};
  settings.freeze = {};
  settings.train_base = settings.gradients = false;
  settings.where_model = folder.string();
  Model model(settings);
  const int64_t rows = micro_batch_rows(train, in.share.count);
  const int64_t bytes = plan_score_bytes(model, rows, train.sequence_length, in.threads);
  const auto with = [&](const Context& own) {
    return evaluate(own, model, eval, world, share, rows, in.config.trainer.evaluate.rows);
  };
  if (bytes <= ctx.scratch.capacity_bytes()) return with(ctx);  // its scratch lies idle by now
  return with(Compute::beside(ctx, bytes));
}

}  // namespace

void evaluate_written(const JobInputs& in, const Context& ctx, const PackedDataset& eval, const LossSums& trained,
                      std::vector<Written>& written) {
  const bool together = in.world.local_size() == in.world.size();  // other nodes may not see the folder
  if (!together && in.world.rank() != 0) return;
  const auto alone = self_communicator();
  Communicator& world = together ? in.world : *alone;
  const DataShare share = together ? in.share : DataShare{};
  for (Written& result : written)
    if (result.is_trained) result.sums = trained;
  while (true) {
    const auto next = std::find_if(written.begin(), written.end(), [](const Written& w) { return !w.sums; });
    const std::string folder = broadcast_text(world, next == written.end() ? "" : next->folder.string());
    if (folder.empty()) return;
    const LossSums sums = evaluate_folder(in, ctx, eval, world, share, folder);
    if (next != written.end()) next->sums = sums;
  }
}

const LossSums& figures_of_outcome(const std::vector<Written>& written, const LossSums& trained) {
  for (const Written& result : written)
    if (result.is_trained) return trained;
  for (const Written& result : written)
    if (result.sums) return *result.sums;
  return trained;
}

}  // namespace tessera
