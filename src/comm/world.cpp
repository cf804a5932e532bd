// Which world is this process in? A launcher tells its ranks through environment variables; only then is the plugin
// opened, so that a run alone needs no MPI library.

#include <dlfcn.h>
#include <sys/utsname.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "comm/communicator.h"
#include "comm/mpi/plugin.h"
#include "comm/slurm.h"
#include "core/error.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSrun = "srun";

struct Launch {
  std::string launcher;
  int rank = 0;
  int size = 0;  // 0: not told
};

std::optional<int> number_in_environment(const char* name) {
  const char* text = std::getenv(name);
  if (!text || !*text) return std::nullopt;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return *end == '\0' ? std::optional<int>(static_cast<int>(value)) : std::nullopt;
}

std::optional<Launch> find_launch() {
  const auto number = number_in_environment;
  if (const auto size = number("OMPI_COMM_WORLD_SIZE"))
    return Launch{"mpirun (Open MPI)", number("OMPI_COMM_WORLD_RANK").value_or(0), *size};
  if (const auto size = number("PMI_SIZE"), rank = number("PMI_RANK"); size && rank)
    return Launch{"a PMI launcher (MPICH's mpiexec or srun)", *rank, *size};
  // A batch script of Slurm has SLURM_PROCID and SLURM_NTASKS too; only a step's tasks know the step's size.
  const auto slurm_rank = number("SLURM_PROCID"), slurm_size = number("SLURM_STEP_NUM_TASKS");
  if (const auto rank = number("PMIX_RANK")) return Launch{"a PMIx launcher", *rank, slurm_size.value_or(0)};
  if (slurm_rank && slurm_size.value_or(0) > 1) return Launch{kSrun, *slurm_rank, *slurm_size};
  return std::nullopt;
}

bool has_pmix() { return std::getenv("PMIX_RANK") || std::getenv("PMIX_NAMESPACE"); }
bool is_task_of_srun() {
  return number_in_environment("SLURM_PROCID") && number_in_environment("SLURM_STEP_NUM_TASKS");
}

[[noreturn]] void refuse_without_pmix() {
  throw UserError(
      "",
      fmt::format("srun started {} tasks and gave them no PMIx, by which the ranks of a job find each other",
                  number_in_environment("SLURM_STEP_NUM_TASKS").value_or(0)),
      "start it with `srun --mpi=pmix`; `srun --mpi=list` shows whether this cluster has it, and mpirun "
      "inside the job works without");
}

std::vector<fs::path> plugin_folders() {
  std::vector<fs::path> folders;
  if (const char* folder = std::getenv("TESSERA_PLUGIN_DIR"); folder && *folder) folders.emplace_back(folder);
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  utsname machine{};
  uname(&machine);
  const fs::path prefix = program.parent_path();
  folders.insert(folders.end(), {program, prefix / "lib",
                                 prefix / "lib" / (std::string(machine.machine) + "-linux-gnu"), prefix / "lib64"});
  return folders;
}

fs::path find_plugin(const Launch& launch) {
  std::string searched;
  for (const fs::path& folder : plugin_folders()) {
    if (fs::exists(folder / kMpiPluginFile)) return folder / kMpiPluginFile;
    searched += "\n  " + folder.string();
  }
  throw UserError(
      "", fmt::format("{} started this program, but its MPI part {} is not there", launch.launcher, kMpiPluginFile),
      "build it where MPI is installed (Debian: libopenmpi-dev), or set TESSERA_PLUGIN_DIR to its folder\n"
      "looked in:" +
          searched);
}

/// Open MPI starts under srun by PMIx alone; others know PMI too.
bool needs_pmix(void* library) { return dlsym(library, kMpiNeedsPmixSymbol) != nullptr; }

MpiWorldFunction* open_plugin(const fs::path& file) {
  // Global, because Open MPI's own plugins look for its symbols there. Never closed: MPI leaves exit handlers behind.
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library)
    throw UserError(file.string(), fmt::format("cannot be opened: {}", dlerror()),
                    "the MPI library it was built with must be installed or on LD_LIBRARY_PATH");
  if (is_task_of_srun() && !has_pmix() && !std::getenv("OMPI_COMM_WORLD_SIZE") && needs_pmix(library))
    refuse_without_pmix();
  void* symbol = dlsym(library, kMpiPluginSymbol);
  if (!symbol)
    throw UserError(file.string(),
                    fmt::format("has no \"{}\": it belongs to another version of this program", kMpiPluginSymbol),
                    "build or install the program and the plugin together");
  return reinterpret_cast<MpiWorldFunction*>(symbol);
}

}  // namespace

bool launched_by_mpi() { return find_launch().has_value(); }

int launched_rank() {
  const auto launch = find_launch();
  return launch ? launch->rank : 0;
}

bool started_by_srun_without_pmix() {
  const auto launch = find_launch();
  return launch && launch->launcher == kSrun && !has_pmix();
}

std::unique_ptr<Communicator> world_communicator() {
  const auto launch = find_launch();
  if (!launch) return self_communicator();
  if (started_by_srun_without_pmix()) refuse_without_pmix();
  std::unique_ptr<Communicator> world(open_plugin(find_plugin(*launch))());
  // Without this check each of N ranks would take itself for the only one, and all would write to one folder.
  if (launch->size > 0 && world->size() != launch->size)
    throw UserError(
        "", fmt::format("{} started {} ranks, but MPI sees {}", launch->launcher, launch->size, world->size()),
        "use the launcher of the MPI that this program was built with; under Slurm that is `srun --mpi=pmix`");
  return world;
}

}  // namespace tessera
