#include "cli/recipe_rules.h"

#include <sstream>

#include "cli/going_on.h"
#include "cli/run_path.h"
#include "core/error.h"
#include "core/stored_file.h"
#include "data/jsonl.h"
#include "io/files.h"
#include "io/hub_cache.h"
#include "train/divergence.h"
#include "train/spsa/snapshots.h"

namespace tessera {
namespace {

std::optional<std::filesystem::path> whole_checkpoint(const std::filesystem::path& folder) {
  try {
    std::vector<std::string> ignored;
    return newest_checkpoint(folder, ignored);
  } catch (const UserError&) {
    return std::nullopt;
  }
}

}  // namespace

void refuse_two_lengths(Recipe& recipe, const TrainConfig& train) {
  if (train.steps && train.epochs)
    recipe.fault("train", "epochs", "train.steps and train.epochs are both given", "give one of them");
}

void require_train_data(Recipe& recipe, const DataConfig& data) {
  if (data.train.empty()) recipe.fault("data", "train", "data.train is not set", "name a .jsonl or text file");
}

namespace {

/// Of the comment in front of the recipe's first key: the commands that name the file or folder; empty where none does.
std::string commands_for(const Recipe& recipe, const std::filesystem::path& path) {
  const std::filesystem::path file = recipe.where("?", "?");
  std::error_code ignored;
  if (path.filename().empty() || !std::filesystem::is_regular_file(file, ignored)) return "";
  std::istringstream lines(read_text_file(file));
  std::string found;
  for (std::string line; std::getline(lines, line) && (line.empty() || line.starts_with('#'));) {
    const size_t command = line.find("scripts/");
    if (command == std::string::npos || line.find(path.filename().string()) == std::string::npos) continue;
    if (line.find_first_not_of("# ") == command) found += "\n  " + line.substr(command);
  }
  return found.empty() ? "" : "the recipe's head tells how to make it:" + found;
}

}  // namespace

void check_path(Recipe& recipe, const std::filesystem::path& path, const char* section, const char* key,
                const std::string& hint) {
  namespace fs = std::filesystem;
  std::error_code fault;
  const fs::file_status status = fs::status(path, fault);
  if (path.empty() || fs::exists(status)) return;
  const std::string commands = commands_for(recipe, path),
                    mend = hint.empty() || commands.empty() ? hint + commands : hint + "\n" + commands;
  recipe.fault(section, key,
               status.type() == fs::file_type::not_found
                   ? fmt::format("{}.{} \"{}\" does not exist", section, key, path.string())
                   : fmt::format("{}.{} cannot be followed: {}: {}", section, key, path.string(), fault.message()),
               status.type() == fs::file_type::not_found ? mend : "");
}

void check_model_path(Recipe& recipe, const std::filesystem::path& path, const char* key, const std::string& hint) {
  const std::string typed = recipe.given_text("model", key), of_page = hub_name_in_url(typed);
  if (!of_page.empty())
    return check_path(recipe, path, "model", key,
                      cached_model(of_page).empty()
                          ? fmt::format("nothing is fetched over the network: {}, then say model.{}={}",
                                        download_command(of_page), key, of_page)
                          : fmt::format("it is in the cache of Hugging Face: say model.{}={}", key, of_page));
  // "org/name", as a hub calls a model: two names, of which not even the first is there.
  const bool is_of_hub = is_hub_name(typed) && !std::filesystem::exists(path.parent_path());
  check_path(
      recipe, path, "model", key,
      is_of_hub ? not_in_cache(typed) : hint + ", or org/name, a model that \"hf download org/name\" has fetched");
}

void check_data_file(Recipe& recipe, const JobConfig& c, const std::filesystem::path& path, const char* section,
                     const char* key) {
  namespace fs = std::filesystem;
  check_path(recipe, path, section, key);
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (path.empty() || !fs::exists(status)) return;
  const std::string what = fmt::format("{}.{} \"{}\"", section, key, path.string());
  if (fs::is_directory(status)) return recipe.fault(section, key, what + " is a folder", "name a file");
  if (const std::string other = fault_of_file(path); !other.empty())
    return recipe.fault(section, key, fmt::format("{} {}", what, other),
                        "write what comes from there to a file, and name that: files are read more than once");
  try {
    const bool records = is_jsonl(path);
    if (!records && c.data.has_choices() && std::string(section) == "data")
      recipe.fault(section, key, what + " is a text file, and data.label_words is set: a text file has no labels",
                   "give a .jsonl file whose records have a label, or leave data.label_words out");
  } catch (const UserError& error) {
    recipe.fault(section, key, fmt::format("{}.{} \"{}\": {}", section, key, path.string(), error.message()),
                 error.hint());
  }
}

void check_resume(Recipe& recipe, const JobConfig& c) {
  namespace fs = std::filesystem;
  const fs::path file = c.run.resume;
  constexpr const char* kWhat = "run.resume is \"auto\", \"never\", or the path of a checkpoint";
  if (!names_checkpoint(c.run)) return;
  if (file.empty()) return recipe.fault("run", "resume", "run.resume is empty", kWhat);
  if (!fs::exists(file))
    return recipe.fault("run", "resume", fmt::format("run.resume \"{}\" does not exist", file.string()), kWhat);
  if (!job_of(c).trains && is_snapshot_name(file))
    return recipe.fault(
        "run", "resume",
        fmt::format("run.resume \"{}\" is a snapshot of one-byte SPSA and no checkpoint", file.string()),
        "job=replay replay.round=N rebuilds the weights of any round");
  if (!fs::is_directory(file)) return;
  // A training goes on from the file that it is told, others take the newest, also of a run that goes on.
  if (!job_of(c).trains && job_of(c).reads_results && checkpoints_in(file)) return;
  std::string hint = kWhat;
  for (const fs::path& folder : {file / "checkpoints", file})
    if (const auto newest = whole_checkpoint(folder))
      hint = "the newest checkpoint in it: " + shell_word("run.resume=" + newest->string());
  recipe.fault("run", "resume", fmt::format("run.resume \"{}\" is a folder", file.string()), hint);
}

void prefer_command_line(const Recipe& recipe, TrainConfig& train) {
  const auto is_typed = [&](const char* key) { return recipe.where("train", key).starts_with("command line"); };
  if (!train.steps || !train.epochs || is_typed("steps") == is_typed("epochs")) return;
  if (is_typed("epochs"))
    train.steps.reset();
  else
    train.epochs.reset();
}

void stay_in_own_folder(const Recipe& recipe, RunConfig& run) {
  const std::filesystem::path own = recipe.folder() / "recipe.toml";
  if (!run.dir.empty() || recipe.name() != "recipe" || !holds_run(recipe.folder())) return;
  if (!read_text_file(own).starts_with(kStoredRecipe)) return;
  run.dir = recipe.folder() == "." ? std::filesystem::current_path() : recipe.folder();
}

}  // namespace tessera
