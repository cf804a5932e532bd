#include "cli/folded_run.h"

#include <optional>

#include "cli/going_on.h"
#include "cli/run_path.h"
#include "core/error.h"
#include "core/field_text.h"
#include "io/files.h"
#include "model/sharing_io.h"
#include "train/divergence.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// The [adapter] of the compression that the folder holds, which is that of its cure; none: it holds no compression, or
/// another job has made it its own since.
std::optional<AdapterConfig> compression_in(const fs::path& run) {
  if (!fs::exists(run / "compress" / "journal.jsonl")) return std::nullopt;
  JobConfig stored;
  stored.job = "compress";
  if (fs::exists(run / "recipe.toml")) {
    Recipe recipe = Recipe::load(run / "recipe.toml");
    recipe.read("", stored);
    recipe.read("adapter", stored.adapter);
  }
  if (stored.job != "compress") return std::nullopt;
  return stored.adapter;
}

bool holds_folded(const fs::path& run) { return fs::exists(run / "sharing" / "sharing.json"); }
bool holds_adapter(const fs::path& run) { return fs::exists(run / "adapter" / "adapter.json"); }

bool are_equal(AdapterConfig one, AdapterConfig other) {
  Fields a, b;
  one.visit(a);
  other.visit(b);
  for (size_t i = 0; i < a.list.size(); ++i)
    if (value_text(a.list[i].target) != value_text(b.list[i].target)) return false;
  return true;
}

/// "cured", "shared" or "removed"; of a damaged description, which its reader tells of, nothing.
std::string state_of(const fs::path& folder) {
  try {
    const fs::path file = folder / "sharing.json";
    return Json::parse(read_text_file(file), file.string()).at("sharing").at("state").as_string();
  } catch (const UserError&) {
    return "";
  }
}

std::string take_of_run(const fs::path& run, JobConfig& c) {
  c.sharing = {};
  c.sharing.method = "fold";
  c.sharing.load = run / "sharing";
  c.adapter = {};
  const std::string state = state_of(c.sharing.load);
  return fmt::format("the folded model of the run{}: {}", state.empty() ? "" : " (" + state + ")",
                     c.sharing.load.string());
}

}  // namespace

std::string take_folded_model(const Recipe& recipe, JobConfig& c) {
  if (!job_of(c).reads_results || names_checkpoint(c.run) || !c.adapter.load.empty()) return "";
  const fs::path run = c.run.dir.empty() ? fs::path("runs") / recipe.name() : c.run.dir;
  if (holds_adapter(run)) return "";
  const fs::path named = c.sharing.load.empty() ? fs::path() : fs::absolute(sharing_folder(c.sharing.load));
  const bool names_run = named.empty() || named.lexically_normal() == fs::absolute(run / "sharing").lexically_normal();
  const bool is_asked = c.sharing.method == "none" || (c.sharing.method == "fold" && names_run);
  const bool is_named = c.sharing.method == "fold" && !named.empty() && c.adapter.method == "none";
  if (is_asked && !is_named && compression_in(run) && holds_folded(run)) return take_of_run(run, c);
  if (c.sharing.method != "fold" || named.empty() || c.adapter.method == "none") return "";
  const auto cure = compression_in(named.parent_path());
  if (!cure || !are_equal(*cure, c.adapter)) return "";
  c.adapter = {};
  return fmt::format("the folded model alone, since the recipe's [adapter] is that of its cure: {}",
                     c.sharing.load.string());
}

void require_folded_model(const JobInputs& in) {
  const JobConfig& c = in.config;
  const fs::path run = run_folder_path(in);
  const bool names_weights = names_checkpoint(c.run) || !c.adapter.load.empty() || !c.sharing.load.empty();
  if (names_weights || holds_folded(run) || holds_adapter(run) || !compression_in(run)) return;
  throw UserError(in.recipe.where("run", "dir"),
                  fmt::format("the compression in \"{}\" has not come to a folded model yet", run.string()),
                  "the command that began it goes on with it; for the base model set run.dir to another folder");
}

void refuse_training_into_compression(const JobInputs& in, const fs::path& run) {
  if (!compression_in(run)) return;
  const std::string other = shell_word("run.dir=" + run.string() + "-trained"),
                    folded = fmt::format("adapter.method=none sharing.method=fold {}",
                                         shell_word("sharing.load=" + run.string()));
  throw UserError(
      (run / "compress").string(),
      "this folder holds a run of job = \"compress\", whose recipe and records a training would write over",
      in.config.sharing.method == "fold"
          ? "set run.dir to another folder, for example " + other
          : fmt::format("set run.dir to another folder; its folded model is trained further by job=train {} {}", folded,
                        other));
}

}  // namespace tessera
