#include "cli/inputs.h"

#include <algorithm>

#include "cli/results.h"
#include "cli/run_path.h"
#include "core/error.h"
#include "io/files.h"
#include "model/adapter_io.h"
#include "model/sharing_io.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kRecipe = "recipe.toml";  // that a run stores: it may be given for that run

struct Input {
  std::string key;  // of the recipe
  fs::path path;    // a file or a folder
};

/// The recipe's file: where a key is told to be that is nowhere.
fs::path recipe_file(const JobInputs& in) { return in.recipe.where("?", "?"); }

std::string resolved_recipe(const JobInputs& in) {
  return std::string(kStoredRecipe) + TESSERA_VERSION "\n" + in.recipe.resolved({"run.dir", "run.resume"});
}

std::string behind_first_line(const std::string& text) { return text.substr(std::min(text.find('\n'), text.size())); }

/// Whether the file holds the resolved recipe already, as this version or another wrote it.
bool holds_recipe(const JobInputs& in, const fs::path& file) {
  return behind_first_line(read_text_file(file)) == behind_first_line(resolved_recipe(in));
}

bool is_same(const fs::path& a, const fs::path& b) {
  std::error_code failure;
  return fs::equivalent(a, b, failure) && !failure;
}

/// Whether the file is what an earlier start of this very run has stored: it may be replaced,
/// since it has been read whole.
bool is_of_this_run(const fs::path& recipe, const fs::path& run) {
  const bool is_stored = read_text_file(recipe).starts_with(kStoredRecipe);
  return is_stored && is_same(fs::canonical(recipe).parent_path(), run) && holds_run(run);
}

/// Whether the path, links resolved, is the folder or lies in it.
bool is_within(const fs::path& path, const fs::path& folder) {
  std::error_code failure;
  const fs::path inner = fs::canonical(path, failure), outer = failure ? fs::path() : fs::canonical(folder, failure);
  if (failure) return false;
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

std::vector<Input> inputs_of(const JobInputs& in) {
  const JobConfig& c = in.config;
  std::vector<Input> all = {{"data.train", c.data.train},
                            {"data.eval", c.data.eval},
                            {"model.path", c.model.path},
                            {"model.tokenizer", c.model.tokenizer}};
  // Of a run only the part with the weights is read: other jobs write beside it.
  if (!c.adapter.load.empty()) all.push_back({"adapter.load", adapter_folder(c.adapter.load)});
  if (!c.sharing.load.empty()) all.push_back({"sharing.load", sharing_folder(c.sharing.load)});
  for (const Job& job : jobs())
    if (job.inputs)
      for (const auto& [key, path] : job.inputs(c)) all.push_back({key, path});
  all.erase(std::remove_if(all.begin(), all.end(), [](const Input& input) { return input.path.empty(); }), all.end());
  const size_t named = all.size();
  for (size_t i = 0; i < named; ++i) {  // a folder is read by its files, any of which may be a link's other end
    std::error_code failure;
    for (const fs::directory_entry& entry : fs::directory_iterator(all[i].path, failure))
      if (entry.is_regular_file(failure)) all.push_back({all[i].key, entry.path()});
  }
  return all;
}

struct Outputs {
  std::vector<std::string> files, folders;  // in the run's folder
};

Outputs outputs_of(const JobInputs& in, const fs::path& run) {
  const JobConfig& c = in.config;
  const Job& job = job_of(c);
  Outputs out;
  if (job.outputs) {
    for (const std::string& name : job.outputs(c)) (name.ends_with('/') ? out.folders : out.files).push_back(name);
    return out;
  }
  if (c.exports.merged || job.results == JobResults::model ||
      (c.adapter.method == "none" && c.sharing.method == "none"))
    out.folders.push_back("model");
  if (c.exports.peft) out.folders.push_back("peft");
  if (job.results == JobResults::model && !exports_native(c, in.recipe)) return out;
  if (c.exports.native && c.adapter.method != "none") out.folders.push_back("adapter");
  if (c.exports.native && c.sharing.method != "none" && c.adapter.method == "none") out.folders.push_back("sharing");
  if (!job.trains) return out;
  out.files = {"metrics.jsonl", "log.txt", "report.html", "run.json", "figures.json"};
  std::error_code failure;
  for (const fs::directory_entry& entry : fs::directory_iterator(run, failure))
    if (entry.path().filename().string().rfind("events.out.tfevents.", 0) == 0)
      out.files.push_back(entry.path().filename().string());
  for (const char* folder : {"checkpoints", "log"}) out.folders.emplace_back(folder);
  return out;
}

[[noreturn]] void refuse(const std::string& key, const fs::path& input, const fs::path& output) {
  throw UserError(output.string(),
                  fmt::format("this job would write over what it reads: {} \"{}\"", key, input.string()),
                  "name another folder with run.dir, or copy the input to another place");
}

}  // namespace

void refuse_overwritten_inputs(const JobInputs& in, const fs::path& run) {
  const Outputs outputs = outputs_of(in, run);
  for (const Input& input : inputs_of(in)) {
    for (const std::string& file : outputs.files)
      if (is_same(input.path, run / file)) refuse(input.key, input.path, run / file);
    for (const std::string& folder : outputs.folders)
      if (!(input.key == "model.path" && folder == "model") &&  // refuse_own_folder knows more about that
          is_within(input.path, run / folder))
        refuse(input.key, input.path, run / folder);
  }
  const fs::path recipe = recipe_file(in);
  for (const std::string& file : outputs.files)
    if (file != kRecipe && is_same(recipe, run / file)) refuse("the recipe", recipe, run / file);
  const bool keeps_recipe = job_of(in.config).trains || std::ranges::count(outputs.files, kRecipe) > 0;
  if (keeps_recipe && is_same(recipe, run / kRecipe) && !holds_recipe(in, recipe) && !is_of_this_run(recipe, run))
    refuse("the recipe", recipe, run / kRecipe);
}

void keep_recipe(const JobInputs& in, const fs::path& file) {
  if (!is_same(recipe_file(in), file) || !holds_recipe(in, file)) write_text_file(file, resolved_recipe(in));
}

}  // namespace tessera
