// job = "prepare": tokenizes the data into the cache and stops.

#include "cli/datasets.h"
#include "cli/plan.h"
#include "cli/recipe_rules.h"
#include "io/output.h"

namespace tessera {
namespace {

JobPlan plan_prepare(const JobInputs& in) {
  JobPlan plan;
  plan.memory.data = plan_data(in, true);
  return plan;
}

std::string smaller_preparation(const JobConfig&, const MemoryPlan&) { return "lower data.max_documents"; }

int prepare(const JobInputs& in) {
  require_memory(in, plan_prepare(in));
  const Datasets sets = load_datasets(in, true);
  if (in.world.rank() != 0 || in.quiet) return kDone;
  const auto say = [&](const char* name, const PackedDataset& set) {
    print_out("{}: {} rows of {} tokens, {} scored tokens, {:.1f} % filled, hash {}\n", name, set.rows(),
              set.sequence_length(), set.scored_tokens(), 100 * set.fill(), set.hash());
  };
  for (const std::string& notice : sets.notices) print_out("{}\n", notice);
  say("train", *sets.train);
  if (sets.eval) say("eval", *sets.eval);
  return kDone;
}

}  // namespace

Job prepare_job() {
  return {.name = "prepare",
          .help = "tokenize the data into the cache and stop",
          .run = prepare,
          .plan = plan_prepare,
          .smaller = smaller_preparation,
          .reads_data = true,
          .samples = {Split::train, Split::eval},
          .check = [](Recipe& recipe, const JobConfig& c) { require_train_data(recipe, c.data); }};
}

}  // namespace tessera
