#include "cli/results.h"

#include "cli/going_on.h"
#include "cli/plan.h"
#include "core/error.h"
#include "model/adapter_io.h"
#include "model/export.h"
#include "train/divergence.h"

namespace tessera {
namespace {

/// What holds the trained weights while the results are being written, and how these are written after all.
std::string what_is_kept(const JobInputs& in, Model& model, const std::filesystem::path& run) {
  const auto with = [](const char* key, const std::filesystem::path& path) { return shell_word(key + path.string()); };
  const auto whole = [&](const char* what, const char* name) {
    return fmt::format("the trained {} whole in \"{}\": job=export {} writes the rest", what, (run / name).string(),
                       with("run.dir=", run));
  };
  if (in.config.exports.native && model.adapter()) return whole("adapter is", "adapter");
  if (in.config.exports.native && model.is_shared() && model.sharing().is_loadable())
    return whole("shared weights are", "sharing");
  if (const std::string_view kept = job_of(in.config).kept; !kept.empty()) return std::string(kept);
  const auto steps = checkpoint_steps(run / "checkpoints");
  const auto file = steps.empty() ? run / "log" : checkpoint_file(run / "checkpoints", steps.front());
  return fmt::format(
      "the trained weights are whole in \"{}\": the same command goes on, or {} run.dir=FOLDER writes them, with another "
      "model.dtype as well",
      file.string(),
      steps.empty() ? "job=replay " + with("replay.log=", run) : "job=export " + with("run.resume=", file));
}

}  // namespace

bool writes_model(const JobInputs& in, Model& model) {
  return in.config.exports.merged || (!model.adapter() && !(model.is_shared() && model.sharing().is_loadable()));
}

bool exports_native(const JobConfig& c, const Recipe& recipe) {
  const bool is_typed = recipe.has("export", "native") && recipe.where("export", "native").starts_with("command line");
  return c.exports.native && (names_checkpoint(c.run) || is_typed);
}

std::string dense_notice(Model& model) {
  if (!model.is_shared()) return "model";
  const int64_t held = model.pool().trainable_count() + model.pool().frozen_count();
  return fmt::format("dense model ({:.3g}x as many numbers as the shared one)",
                     static_cast<double>(dense_parameters(model)) / static_cast<double>(held));
}

void naming_what_is_kept(const std::string& kept, const std::function<void()>& work) {
  try {
    work();
  } catch (const UserError& error) {
    throw UserError(error.where(), error.message(), error.hint().empty() ? kept : error.hint() + "\n" + kept);
  } catch (const std::bad_alloc&) {
    throw UserError("", "out of memory while the results were written", kept);
  }
}

std::string rounded_notice(const Written& result, const std::string& meaning) {
  if (!result.rounded_to) return "";
  return fmt::format("{}: the weights were rounded to {}{}; model.dtype=f32 writes them as they are",
                     result.folder.string(), name_of(*result.rounded_to), meaning);
}

Written write_model(const JobInputs& in, const Context& ctx, Model& model, const std::filesystem::path& run) {
  Written result{.name = "model", .folder = run / "model"};
  result.is_trained = export_merged(result.folder, model, in.config.model.tokenizer_folder(), ctx);
  if (!result.is_trained && model.export_dtype() != DType::f32) result.rounded_to = model.export_dtype();
  return result;
}

std::vector<Written> export_results(const JobInputs& in, const Context& ctx, Model& model,
                                    const std::filesystem::path& folder,
                                    const std::function<void(const std::string&)>& say) {
  std::vector<Written> written;
  const auto add = [&](const std::string& what, const Written& result) {
    written.push_back(result);
    if (say) say(fmt::format("{}: {}", what, result.folder.string()));
  };
  const auto told = [&](const std::string& what, const char* name) {
    add(what, {.name = name, .folder = folder / name});
  };
  if (in.config.exports.native && model.adapter()) {
    save_adapter(folder / "adapter", model);
    told("adapter", "adapter");
  } else if (in.config.exports.native && model.is_shared()) {
    save_sharing(folder / "sharing", model);
    told("shared weights", "sharing");
  }
  naming_what_is_kept(what_is_kept(in, model, folder), [&] {
    if (writes_model(in, model)) add(dense_notice(model), write_model(in, ctx, model, folder));
    if (in.config.exports.peft && model.adapter()) {
      export_peft(folder / "peft", model);
      told("PEFT adapter", "peft");
    }
  });
  return written;
}

}  // namespace tessera
