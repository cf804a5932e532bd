#include "cli/workspace.h"

#include <unistd.h>

#include <algorithm>

#include "io/files.h"
#include "model/adapter_io.h"
#include "model/export.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace {

/// A large file is hashed once a node; the other ranks of the node pass nothing, and agree with everyone.
void require_equal_where_known(Communicator& world, const std::string& what, const std::string& value) {
  std::string first;
  for (const auto& bytes : world.all_gather(std::as_bytes(std::span(value)))) {
    const std::string other(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (other.empty()) continue;
    if (first.empty()) first = other;
    if (other != first)
      throw UserError("", fmt::format("{} differ between the machines of this job ({} and {})", what, first, other),
                      "copy the same files to every machine");
  }
}

/// A warning when the tokenizer does not know more than one word in a hundred; empty otherwise.
std::string unknown_words(const TokenData& data, const Tokenizer& tokenizer) {
  const auto unknown = tokenizer.token_id("<unk>");
  if (!unknown) return "";
  const auto count = std::count(data.tokens.begin(), data.tokens.end(), *unknown);
  const double share = static_cast<double>(count) / static_cast<double>(std::max<size_t>(1, data.tokens.size()));
  if (share <= 0.01) return "";
  return fmt::format(
      "warning: {:.0f} % of the data's tokens are <unk>: the model's tokenizer does not know these words (--show-batch shows them)",
      100 * share);
}

/// Written last by an export: the folder is whole.
bool holds_model(const std::filesystem::path& folder) { return std::filesystem::exists(folder / "model.safetensors"); }

bool holds_sharing(const std::filesystem::path& run) {
  return std::filesystem::exists(run / "sharing" / "sharing.json");
}

/// @throws UserError when the run ended with weights that are held in another way than the recipe's
void require_same_sharing(const JobInputs& in, const std::filesystem::path& run) {
  const bool shared = in.config.sharing.method != "none";
  if (shared ? holds_sharing(run) || !holds_model(run / "model") : !holds_sharing(run)) return;
  throw UserError(
      in.recipe.where("run", "dir"),
      fmt::format("\"{}\" holds {}, and this recipe has sharing.method = \"{}\"", run.string(),
                  shared ? "a dense model and no shared weights" : "shared weights", in.config.sharing.method),
      "set [sharing] as the run has it in its recipe.toml, or name another folder with run.dir");
}

/// Whether the run trained an adapter: its base model is still the recipe's.
bool is_adapter_run(const std::filesystem::path& run) {
  if (std::filesystem::exists(run / "adapter" / "adapter.json")) return true;
  if (!std::filesystem::exists(run / "recipe.toml")) return false;
  AdapterConfig adapter;
  Recipe recipe = Recipe::load(run / "recipe.toml");
  recipe.read("adapter", adapter);
  return adapter.method != "none";
}

/// @throws UserError when the run holds steps of a training of all weights, and not the model that it ends with
void require_ended(const JobInputs& in, const std::filesystem::path& run) {
  std::vector<std::string> ignored;
  if (!std::filesystem::exists(run / "log" / "header.json") && !newest_checkpoint(run / "checkpoints", ignored)) return;
  throw UserError(in.recipe.where("run", "dir"),
                  fmt::format("the training in \"{}\" has not ended: it holds no model yet", run.string()),
                  "finish it with the command that began it, or set another run.dir to work with the base model");
}

int64_t available_memory() { return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE); }

}  // namespace

DataConfig data_config(const JobInputs& in) {
  DataConfig data = in.config.data;
  if (data.cache.empty()) data.cache = std::filesystem::absolute(run_folder_path(in)).parent_path() / ".cache";
  return data;
}

Datasets load_datasets(const JobInputs& in, bool need_train) {
  Datasets sets{
      .tokenizer = Tokenizer::load(in.config.model.tokenizer_folder()), .train = {}, .eval = {}, .notices = {}};
  const TrainConfig& train = in.config.trainer.train;
  const auto load = [&](Split split) {
    std::string notice;
    TokenData data = load_split(data_config(in), sets.tokenizer, split, &notice);
    if (!notice.empty()) sets.notices.push_back(notice);
    if (split == Split::train && train.objective == "tokens") data = answers_only(std::move(data));
    if (const std::string warning = unknown_words(data, sets.tokenizer); !warning.empty())
      sets.notices.push_back(warning);
    return PackedDataset(std::move(data), train.sequence_length, static_cast<uint64_t>(train.seed));
  };
  const auto load_all = [&] {
    if (need_train) sets.train.emplace(load(Split::train));
    if (!in.config.data.eval.empty() || in.config.data.eval_fraction > 0) sets.eval.emplace(load(Split::eval));
  };
  if (in.world.local_rank() == 0) load_all();
  in.world.barrier();
  if (in.world.local_rank() != 0) load_all();
  return sets;
}

void require_known_token(const JobInputs& in, const Model& model, const Tokenizer& tokenizer, int32_t largest_id) {
  if (largest_id < model.config().vocab_size) return;
  throw UserError((in.config.model.tokenizer_folder() / "tokenizer.json").string(),
                  fmt::format("the token \"{}\" has the id {}, but the model's vocab_size is {}",
                              tokenizer.token(largest_id), largest_id, model.config().vocab_size),
                  "tokenizer and model do not belong together: look at model.tokenizer and model.path");
}

void require_known_tokens(const JobInputs& in, const Model& model, const Datasets& sets) {
  if (sets.train) require_known_token(in, model, sets.tokenizer, sets.train->largest_id());
  if (sets.eval) require_known_token(in, model, sets.tokenizer, sets.eval->largest_id());
}

std::string length_notice(const JobInputs& in, const Model& model) {
  const int64_t length = in.config.trainer.train.sequence_length, known = model.config().max_position_embeddings;
  if (length <= known) return "";
  return fmt::format("note: rows of {} tokens are longer than the {} positions that config.json says the model knows",
                     length, known);
}

Model::Settings model_settings(const JobInputs& in, int64_t max_position) {
  Model::Settings settings;
  settings.model = in.config.model;
  settings.sharing = in.config.sharing;
  settings.adapter = in.config.adapter;
  const bool trains = in.config.job == "train" || in.config.job == "replay";
  settings.train_base = trains && in.config.adapter.method == "none";
  settings.freeze = in.config.trainer.train.freeze;
  settings.gradients = in.config.job == "train" && in.config.trainer.train.estimator == "backprop";
  settings.max_position = max_position;
  settings.seed = static_cast<uint64_t>(in.config.trainer.train.seed);
  settings.where_model = in.recipe.where("model", "path");
  settings.where_sharing = in.recipe.where("sharing", "");
  settings.where_adapter = in.recipe.where("adapter", "");
  return settings;
}

namespace {

/// The shared weights that the run trained, if it has.
void use_trained_sharing(const JobInputs& in, const std::filesystem::path& run, Model::Settings& settings) {
  require_same_sharing(in, run);
  if (!holds_sharing(run)) {
    require_ended(in, run);
    if (settings.sharing.load.empty() && settings.model.init == "random")
      throw UserError(
          in.recipe.where("sharing", "load"),
          fmt::format("there are no trained weights: sharing.load is not set and \"{}\" holds none", run.string()),
          "set sharing.load to a folder that a training wrote, or run.dir to the run's folder");
    return;
  }
  settings.sharing.load = run / "sharing";
  settings.where_sharing = in.recipe.where("run", "dir");
  if (in.world.rank() == 0 && !in.quiet)
    fmt::print(stderr, "the shared weights that the run trained: {}\n", settings.sharing.load.string());
}

}  // namespace

Model::Settings trained_model_settings(const JobInputs& in, int64_t max_position) {
  Model::Settings settings = model_settings(in, max_position);
  const std::filesystem::path run = run_folder_path(in), trained = run / "model";
  if (in.config.adapter.method != "none" || is_adapter_run(run)) return settings;
  if (in.config.sharing.method != "none") {
    use_trained_sharing(in, run, settings);
    return settings;
  }
  if (!holds_model(trained)) {
    require_same_sharing(in, run);
    require_ended(in, run);
    return settings;
  }
  settings.model.path = trained;
  settings.model.init = "pretrained";
  settings.where_model = in.recipe.where("run", "dir");
  if (in.world.rank() == 0 && !in.quiet) fmt::print(stderr, "the model that the run trained: {}\n", trained.string());
  return settings;
}

void refuse_base_export(const JobInputs& in) {
  const std::filesystem::path run = run_folder_path(in), trained = run / "model";
  if (in.config.adapter.method != "none") return;
  refuse_own_folder(trained, in.config.model.path);
  require_same_sharing(in, run);
  if (holds_sharing(run)) return;
  if (holds_model(trained))
    throw UserError(
        in.recipe.where("run", "dir"),
        fmt::format("\"{}\" holds {} already: the base model is not written over it", trained.string(),
                    std::filesystem::exists(run / "recipe.toml") ? "the model that this run trained" : "a model"),
        "use it as it is, or name another folder with run.dir");
  if (!is_adapter_run(run)) require_ended(in, run);
}

void start_from_saved_adapter(const JobConfig& config, Model& model) {
  if (!config.adapter.load.empty() && model.adapter()) load_adapter(config.adapter.load, model, "adapter.load");
}

void use_trained_adapter(const JobInputs& in, Model& model) {
  if (!model.adapter() || !in.config.adapter.load.empty()) return start_from_saved_adapter(in.config, model);
  const std::filesystem::path trained = run_folder_path(in) / "adapter";
  if (!std::filesystem::exists(trained / "adapter.json"))
    throw UserError(
        in.recipe.where("adapter", "load"),
        fmt::format("there is no trained adapter: adapter.load is not set and \"{}\" holds none", trained.string()),
        "set adapter.load to a folder that a training wrote, or adapter.method=none for the base model alone");
  load_adapter(trained, model, "run.dir");
}

/// Moments, or the seed pool's sums, of the replica.
int64_t spsa_state_bytes(const JobInputs& in, Model& model) {
  const int64_t count = model.pool().trainable().values.shape.count();
  const OptimizerConfig& optimizer = in.config.trainer.optimizer;
  if (in.config.trainer.spsa.directions == "pool") return 12 * count;
  return optimizer.name == "adamw" ? 8 * count : optimizer.momentum != 0 ? 4 * count : 0;
}

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

void require_agreement(const JobInputs& in, Model& model, const Datasets& sets) {
  require_equal(in.world, "the training data", sets.train ? sets.train->hash() : "");
  require_equal(in.world, "the evaluation data", sets.eval ? sets.eval->hash() : "");
  require_equal(in.world, "the weights' layout", fmt::format("{:016x}", model.views_fingerprint()));
  const auto values = model.pool().trainable().values;
  require_equal(in.world, "the trained parameters",
                sha256_hex(std::span(static_cast<const std::byte*>(values.data), static_cast<size_t>(values.bytes()))));
  require_equal_where_known(in.world, "the base weights",
                            in.world.size() > 1 && in.world.local_rank() == 0 ? model.base_fingerprint() : "");
}

bool writes_model(const JobInputs& in, Model& model) {
  return in.config.exports.merged || (!model.adapter() && !(model.is_shared() && model.sharing().is_loadable()));
}

std::string dense_notice(Model& model) {
  if (!model.is_shared()) return "model";
  const int64_t held = model.pool().trainable_count() + model.pool().frozen_count();
  return fmt::format("dense model ({:.3g}x as many numbers as the shared one)",
                     static_cast<double>(dense_parameters(model)) / static_cast<double>(held));
}

void export_results(const JobInputs& in, const Context& ctx, Model& model, const std::filesystem::path& folder,
                    const std::function<void(const std::string&)>& say) {
  const auto told = [&](const char* what, const char* name) {
    if (say) say(fmt::format("{}: {}", what, (folder / name).string()));
  };
  if (writes_model(in, model)) {
    export_merged(folder / "model", model, in.config.model.tokenizer_folder(), ctx);
    told(dense_notice(model).c_str(), "model");
  }
  if (!model.adapter()) {
    if (!model.is_shared() || !in.config.exports.native) return;
    save_sharing(folder / "sharing", model);
    return told("shared weights", "sharing");
  }
  if (in.config.exports.native) {
    save_adapter(folder / "adapter", model);
    told("adapter", "adapter");
  }
  if (in.config.exports.peft) {
    export_peft(folder / "peft", model);
    told("PEFT adapter", "peft");
  }
}

int64_t wire_bytes_per_step(const JobInputs& in, Model& model) {
  const SpsaConfig& spsa = in.config.trainer.spsa;
  if (in.config.trainer.train.estimator != "spsa") return 4 * model.pool().trainable_count();
  return 19 + spsa.probes * (spsa.votes == "float32" ? 4 : 1) + 2;
}

std::filesystem::path run_folder_path(const JobInputs& in) {
  return in.config.run.dir.empty() ? std::filesystem::path("runs") / in.recipe.name() : in.config.run.dir;
}

std::string megabytes(int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  if (bytes < 1000 * 1000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) * 1e-3);
  if (bytes < 1000 * 1000 * 1000) return fmt::format("{:.1f} MB", static_cast<double>(bytes) * 1e-6);
  return fmt::format("{:.2f} GB", static_cast<double>(bytes) * 1e-9);
}

}  // namespace tessera
