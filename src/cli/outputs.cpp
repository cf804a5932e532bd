#include "cli/outputs.h"

#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "cli/estimator_run.h"
#include "cli/going_on.h"
#include "core/error.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

enum class Kind { file, folder };

struct Output {
  std::string name;
  Kind kind;
};

void add_results(const JobConfig& c, std::vector<Output>& outputs) {
  const bool has_adapter = c.adapter.method != "none", is_shared = c.sharing.method != "none";
  if (c.exports.merged || (!has_adapter && !is_shared) || job_of(c).results == JobResults::model)
    outputs.push_back({"model", Kind::folder});
  if (has_adapter && c.exports.native) outputs.push_back({"adapter", Kind::folder});
  if (has_adapter && c.exports.peft) outputs.push_back({"peft", Kind::folder});
  if (!has_adapter && is_shared && c.exports.native) outputs.push_back({"sharing", Kind::folder});
}

std::vector<Output> outputs_of(const JobConfig& c) {
  std::vector<Output> outputs;
  const Job& job = job_of(c);
  if (job.trains) {
    outputs = {{"checkpoints", Kind::folder}, {"recipe.toml", Kind::file}, {"metrics.jsonl", Kind::file},
               {"log.txt", Kind::file},       {"report.html", Kind::file}, {"checkpoints/latest", Kind::file}};
    const EstimatorRun::Leaves leaves = estimator_run(c).leaves();
    for (const std::string& folder : leaves.folders) outputs.push_back({folder, Kind::folder});
    for (const std::string& file : leaves.files) outputs.push_back({file, Kind::file});
  }
  if (job.frees_results) add_results(c, outputs);
  if (job.outputs)
    for (const std::string& name : job.outputs(c)) {
      const bool is_folder = name.ends_with('/');
      outputs.push_back({is_folder ? name.substr(0, name.size() - 1) : name, is_folder ? Kind::folder : Kind::file});
    }
  if (!outputs.empty()) outputs.push_back({".lock", Kind::file});
  return outputs;
}

/// What keeps an output from being written, in words; empty when nothing does.
std::string obstacle(const fs::path& path, Kind kind) {
  std::error_code failure;
  const fs::file_status itself = fs::symlink_status(path, failure);
  if (!fs::exists(itself)) return "";
  const fs::file_status there = fs::status(path, failure);
  if (!fs::exists(there)) return "is a link to nowhere: remove it, or make what it points to";
  if (kind == Kind::folder && !fs::is_directory(there)) return "is a file, and a folder belongs there: move it away";
  if (kind == Kind::file && fs::is_directory(there)) return "is a folder, and a file belongs there: move it away";
  if (kind == Kind::file && (fs::is_fifo(there) || fs::is_socket(there)))
    return "is a pipe or a socket, and a file belongs there: move it away";
  if (kind == Kind::folder && ::access(path.c_str(), W_OK | X_OK) != 0)
    return fmt::format("cannot be written: {}: change its permissions", std::generic_category().message(errno));
  return "";
}

/// The folder itself, or the one that it will be made in.
fs::path nearest_existing(fs::path path) {
  std::error_code failure;
  for (path = fs::absolute(path); !fs::exists(fs::symlink_status(path, failure)) && path.has_relative_path();)
    path = path.parent_path();
  return path;
}

}  // namespace

void require_free_outputs(const JobInputs& in) {
  const std::vector<Output> outputs = outputs_of(in.config);
  if (outputs.empty() || in.world.rank() != 0) return;
  fs::path folder = own_run_path(in);
  const fs::path existing = nearest_existing(folder);
  if (const std::string what = obstacle(existing, Kind::folder); !what.empty())
    throw UserError(folder.string(),
                    fmt::format("this run folder cannot be made or written: \"{}\" {}", existing.string(), what),
                    "set run.dir to a folder that can be written");
  const Job& job = job_of(in.config);
  const bool is_new = !job.outputs && in.config.run.resume != "auto" && (job.trains || names_checkpoint(in.config.run));
  if (is_new) return;  // an empty folder
  std::string all;
  for (const Output& output : outputs)
    if (const std::string what = obstacle(folder / output.name, output.kind); !what.empty())
      all += fmt::format("{}{}: {}", all.empty() ? "" : "\n", (folder / output.name).string(), what);
  if (!all.empty()) throw UserError("", all, "or set run.dir to another folder");
}

}  // namespace tessera
