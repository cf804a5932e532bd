#include "cli/preflight.h"

#include <algorithm>

#include "cli/datasets.h"
#include "cli/estimator_run.h"
#include "cli/going_on.h"
#include "data/preparation.h"
#include "data/token_data.h"

namespace tessera {
namespace {

constexpr int64_t kDocuments = 64;

void look_at_split(const JobInputs& in, const Model* model, const Tokenizer& tokenizer, Split split) {
  const TrainConfig& train = in.config.trainer.train;
  bool whole = false;
  TokenData data = load_sample(data_config(in), tokenizer, split, kDocuments, whole);
  if (data.tokens.empty()) return;
  if (model) require_known_token(in, *model, tokenizer, *std::max_element(data.tokens.begin(), data.tokens.end()));
  if (split == Split::train && objective_of(train.objective).rows == ExampleRows::answers)
    data = answers_only(std::move(data));
  if (whole) PackedDataset(std::move(data), train.sequence_length, 0, kNewestRules);
}

}  // namespace

void preflight(const JobInputs& in, const Model* model) {
  if (in.world.rank() != 0) return;
  const Job& job = job_of(in.config);
  if (job.trains) look_at_run(in, own_run_path(in));
  if (job.samples.empty()) return;
  const Tokenizer tokenizer = Tokenizer::load(in.config.model.tokenizer_folder());
  for (const Split split : job.samples)
    if (split == Split::train || in.config.data.has_eval()) look_at_split(in, model, tokenizer, split);
}

}  // namespace tessera
