#include "cli/plan.h"

#include <unistd.h>

#include <algorithm>

#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace {

int64_t available_memory() { return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE); }

/// Moments, or the seed pool's sums, of the replica.
int64_t spsa_state_bytes(const JobInputs& in, Model& model) {
  const int64_t count = model.pool().trainable().values.shape.count();
  const OptimizerConfig& optimizer = in.config.trainer.optimizer;
  if (in.config.trainer.spsa.directions == "pool") return 12 * count;
  return optimizer.name == "adamw" ? 8 * count : optimizer.momentum != 0 ? 4 * count : 0;
}

}  // namespace

MemoryPlan plan_memory(const JobInputs& in, Model& model) {
  const TrainConfig& train = in.config.trainer.train;
  MemoryPlan plan{};
  plan.mapped = model.pool().frozen_mapped_bytes();
  plan.weights_and_gradients = model.pool().owned_bytes();
  plan.optimizer =
      make_optimizer(in.config.trainer.optimizer, model.pool().trainable().values.shape.count())->state_bytes();
  plan.assembled = model.bound_adapter() ? model.bound_adapter()->assembled_bytes() : 0;
  if (train.estimator == "spsa") {
    const auto prober = make_prober(in.config.trainer.spsa, model);
    plan.optimizer = spsa_state_bytes(in, model);
    plan.assembled += prober->owned_bytes();
    plan.activations = std::max(
        prober->plan_bytes(prober->micro_rows(train), train.sequence_length, in.threads),
        plan_activation_bytes(model, micro_batch_rows(train, in.world.size()), train.sequence_length, in.threads, {}));
  } else {
    plan.activations = plan_activation_bytes(
        model, micro_batch_rows(train, in.world.size()), train.sequence_length, in.threads,
        {.backward = true, .dropout = true, .checkpoint_activations = train.checkpoint_activations});
  }
  const int64_t node = plan.owned() * in.world.local_size() + plan.mapped;
  if (node > available_memory())
    throw UserError(
        in.recipe.where("train", "batch"),
        fmt::format("this run needs {} on this machine ({} ranks), which has {}", megabytes(node),
                    in.world.local_size(), megabytes(available_memory())),
        "lower train.micro_batch or train.sequence_length, set train.checkpoint_activations = true, or start fewer ranks");
  return plan;
}

int64_t dense_parameters(Model& model) {
  int64_t count = 0;
  for (const WeightSpec& spec : model.decoder().specs())
    if (spec.storage == spec.name) count += spec.shape.count();
  return count;
}

Footprint footprint(Model& model, const MemoryPlan& memory) {
  const ParameterPool& pool = model.pool();
  const FlatParams& flat = pool.trainable();
  const int64_t slots = flat.values.shape.count(), flat_bytes = flat.values.bytes() * (flat.grads.empty() ? 1 : 2);
  const int64_t each = slots > 0 ? (flat_bytes + memory.optimizer) / slots : 0;  // bytes of a number that is trained
  const int64_t frozen = memory.mapped + memory.weights_and_gradients - flat_bytes, dense = dense_parameters(model);
  const int64_t held = each * pool.trainable_count() + frozen;
  if (!model.adapter()) return {held, each * (dense - pool.frozen_count()) + frozen};
  const int64_t base = model.is_shared() ? dense * size_of(model.export_dtype()) : frozen;
  return {held, each * (model.virtual_parameters() - dense) + base};
}

int64_t wire_bytes_per_step(const JobInputs& in, Model& model) {
  const SpsaConfig& spsa = in.config.trainer.spsa;
  if (in.config.trainer.train.estimator != "spsa") return 4 * model.pool().trainable_count();
  const int64_t length = spsa.transport == "file" ? 0 : 8;
  return length + 19 + spsa.probes * (spsa.votes == "float32" ? 4 : 1) + 2;
}

std::string megabytes(int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  if (bytes < 1000 * 1000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) * 1e-3);
  if (bytes < 1000 * 1000 * 1000) return fmt::format("{:.1f} MB", static_cast<double>(bytes) * 1e-6);
  return fmt::format("{:.2f} GB", static_cast<double>(bytes) * 1e-9);
}

}  // namespace tessera
