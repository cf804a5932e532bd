#include "cli/jobs/generate_plan.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "cli/jobs/generate_config.h"
#include "cli/memory_limit.h"
#include "core/error.h"
#include "infer/rank_shares.h"

namespace tessera {
namespace {

/// Memory that keys and values of a rank may have, beside what the job takes otherwise. Ranks of a machine share it.
/// @param adapters  bytes of the named ones, which the plan has already
int64_t page_memory(const JobInputs& in, const JobPlan& plan, int64_t adapters) {
  const GenerateConfig& g = config_of(in);
  const int64_t ranks = in.world.local_size(), all = node_memory_limit().bytes;
  if (g.memory_gib > 0)
    return std::max<int64_t>(0,
                             std::min(static_cast<int64_t>(g.memory_gib * (int64_t{1} << 30)), all / ranks) - adapters);
  const int64_t machine = (all - plan.memory.mapped) / ranks - plan.memory.owned() - held_bytes(),
                process = process_memory_limit().bytes - plan.memory.owned();
  return std::max<int64_t>(0, std::min(machine, process) / 10 * 8);
}

/// @throws UserError when a request does not fit alone: the same on every rank
void require_room(const JobInputs& in, const Planned& planned, Model& model, int64_t memory, int64_t adapters) {
  const EngineOptions options = config_of(in).engine();
  const int64_t largest =
      planned.batch.most_bundles * bundle_bytes(model.decoder(), options.page_tokens, options.kv_dtype);
  if (config_of(in).memory_gib > 0 && largest > memory)
    throw UserError(in.recipe.where("generate", "memory_gib"),
                    fmt::format("request {} alone needs {} of keys and values, and {} are allowed{}",
                                planned.numbers[static_cast<size_t>(planned.batch.largest)] + 1, megabytes(largest),
                                megabytes(memory), adapters > 0 ? " beside adapters of " + megabytes(adapters) : ""),
                    "raise generate.memory_gib, lower generate.max_new_tokens, take a smaller generate.kv_dtype, or, "
                    "where its prompt is cut into many short prefixes, set generate.prefix = \"off\"");
}

/// Part by part, of all ranks.
EngineMemory largest_of(Communicator& world, const EngineMemory& mine) {
  std::array<double, 4> most{static_cast<double>(mine.bundles), static_cast<double>(mine.bundle_bytes),
                             static_cast<double>(mine.peak_bundles), static_cast<double>(mine.pass_bytes)};
  world.all_reduce_max(std::span<double>(most));
  return {static_cast<int64_t>(most[0]), static_cast<int64_t>(most[1]), static_cast<int64_t>(most[2]),
          static_cast<int64_t>(most[3])};
}

}  // namespace

Planned plan_requests(const JobInputs& in, const Asked& asked, std::vector<size_t> numbers) {
  const EngineOptions options = config_of(in).engine();
  Planned planned{.job = plan_of_results(in, asked.positions())};
  Model& model = *planned.job.model;
  const auto plan = [&] {
    return plan_batch(planned.share, options.prefix, options.page_tokens, model.decoder().max_position(), in.threads,
                      asked.adapters.batch(model, options.max_step_adapters));
  };
  planned.pick(asked.file, std::move(numbers));
  planned.batch = plan();
  planned.statistics = planned.batch.statistics;
  planned.cached = planned.batch.cached;
  for (const Demand& demand : planned.batch.demands) planned.new_tokens += demand.new_tokens * demand.tails();
  for (const double tokens : planned.batch.expected_new) planned.expected_new += tokens;
  const AdaptersAtWork adapters(asked.adapters, model, planned.share);  // of all ranks
  planned.job.memory.assembled += adapters.bytes();
  const int64_t memory = page_memory(in, planned.job, adapters.bytes());
  require_room(in, planned, model, memory, adapters.bytes());
  if (in.world.size() > 1) {
    planned.pick(asked.file,
                 share_of_rank(asked.file, planned.numbers, planned.batch, in.world.rank(), in.world.size()));
    planned.batch = plan();
  }
  if (!planned.share.empty())
    planned.memory = plan_engine_memory(model, planned.batch, options, in.threads, memory, adapters.by_name());
  planned.to_compute =
      static_cast<int64_t>(sum_over_ranks(in.world, {static_cast<double>(planned.batch.tree.tokens())})[0]);
  planned.largest = largest_of(in.world, planned.memory);
  planned.job.memory.activations = planned.largest.bytes();
  return planned;
}

std::vector<size_t> all_of(const RequestFile& file) {
  std::vector<size_t> numbers(file.requests.size());
  std::iota(numbers.begin(), numbers.end(), size_t{0});
  return numbers;
}

}  // namespace tessera
