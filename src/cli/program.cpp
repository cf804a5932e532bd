#include "cli/program.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <sstream>
#include <thread>

#include "cli/check.h"
#include "cli/list_kind.h"
#include "cli/log_command.h"
#include "cli/plan.h"
#include "cli/show_batch.h"
#include "cli/signals.h"
#include "comm/data_groups.h"
#include "comm/slurm.h"
#include "comm/threads.h"
#include "core/error.h"
#include "core/json.h"
#include "core/out_of_memory.h"
#include "core/rules.h"
#include "io/output.h"
#include "kernels/cpu_target.h"

namespace tessera {
namespace {

struct Arguments {
  std::string recipe, explain, list;
  std::vector<std::string> overrides;
  bool check = false, json = false, show_batch = false, quiet = false, version = false;
};

/// As text, or as JSON with what the bits of a run hang on: the rules of a new one, and the instructions in use, which
/// change none.
std::string version_text(bool json) {
  if (!json) return "trainer " TESSERA_VERSION "\n";
  return Json::object()
             .set("version", TESSERA_VERSION)
             .set("rules", static_cast<int64_t>(kNewestRules))
             .set("target", std::string(cpu_target()))
             .dump() +
         "\n";
}

/// What went wrong, as the user reads it, and the exit code. Call inside a catch block.
/// @param smaller  what would take less memory
std::pair<std::string, int> describe_error(const std::string& smaller = "use a machine with more memory") {
  try {
    throw;
  } catch (const OutOfMemory& error) {
    return {UserError(error.where(), error.message(), smaller).what(), kUserError};
  } catch (const UserError& error) {
    return {error.what(), kUserError};
  } catch (const std::filesystem::filesystem_error& error) {
    return {UserError(error.path1().string(), error.code().message()).what(), kUserError};
  } catch (const std::bad_alloc&) {
    return {UserError("", "out of memory", smaller).what(), kUserError};
  } catch (const std::exception& error) {
    return {fmt::format("this is a fault of trainer, not yours: {}\n  please report it with the recipe", error.what()),
            kOurFault};
  }
}

/// Every rank that fails comes here. Rank 0 speaks at once and ends the job, which silences the others; when it is
/// well, the failing rank speaks a moment later: one message in either case.
void print_once(int rank, const std::string& message) {
  if (rank > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1500 + 20 * rank));
  std::fputs(((rank > 0 ? fmt::format("rank {}: ", rank) : "") + message + "\n").c_str(), stderr);
  std::fflush(stderr);
}

/// What every rank must have been given alike, before the first collective that depends on it.
std::string request_text(const Arguments& arguments, const Recipe& recipe) {
  std::string text;
  for (const auto& [key, value] : recipe.flat())
    if (key != "run.dir" && key != "data.cache") text += key + " = " + value + "\n";
  if (arguments.check) text += "--check\n";
  if (arguments.show_batch) text += "--show-batch\n";
  return text;
}

/// The OpenMP library ends the program when it cannot start a thread.
void require_threads(const Recipe& recipe, int threads) {
  if (can_start_threads(threads - 1)) return;
  throw UserError(recipe.where("run", "threads"),
                  fmt::format("{} threads (run.threads) cannot be started here", threads),
                  "set run.threads to fewer, or raise the limit of processes or of memory (ulimit -u, ulimit -v)");
}

/// What is worth knowing before the job starts: of the recipe, and of the machine.
std::vector<std::string> notes_of(const JobConfig& config) {
  std::vector<std::string> notes = config.notes;
  // The reference's loops multiply and add in two roundings.
  if (const std::string slow = slow_loops_notice(); !slow.empty() && config.run.backend != "reference")
    notes.push_back(slow);
  return notes;
}

int run_job(const Arguments& arguments, Recipe& recipe, const JobConfig& config, Communicator& world) {
  const bool launched = launched_by_mpi();
  require_equal(world, "the recipe", request_text(arguments, recipe));
  const ThreadPlan threads = threads_per_rank(world, find_cores(), static_cast<int>(config.run.threads));
  require_threads(recipe, threads.threads);
  if (world.rank() == 0 && !threads.notice.empty() && !arguments.quiet) fmt::print(stderr, "{}\n", threads.notice);
  if (world.rank() == 0 && !arguments.quiet)
    for (const std::string& note : notes_of(config)) fmt::print(stderr, "{}\n", note);
  const JobInputs inputs{config, recipe, world, threads.threads, arguments.quiet, launched, data_share_of(world)};
  if (arguments.check) return check_job(inputs, arguments.json);
  if (arguments.show_batch) return show_batch(inputs);
  return job_of(config).run(inputs);
}

int explain(Recipe& recipe, const std::string& key) {
  JobConfig ignored;
  try {
    read_job(recipe, ignored);
  } catch (const UserError&) {  // a key can be explained in a recipe that is not in order
  }
  std::vector<std::string> known;
  bool found = false;
  for (const auto& [name, text] : recipe.explain()) {
    known.push_back(name);
    if (key != "all" && name != key && !name.starts_with(key + ".") && !name.starts_with(key + "[].")) continue;
    print_out("{}\n  {}\n", name, text);
    found = true;
  }
  if (found) return kDone;
  const std::string near = nearest_name(key, known);
  throw UserError("command line", fmt::format("no key is called \"{}\"", key),
                  near.empty() ? "--explain all lists every key" : fmt::format("did you mean \"{}\"?", near));
}

int run_recipe(const Arguments& arguments) {
  const int rank = launched_rank();
  if (rank > 0 && started_by_srun_without_pmix()) return kUserError;  // rank 0 says so; nobody ends the others
  std::unique_ptr<Communicator> world;
  JobConfig config;
  try {
    Recipe recipe = Recipe::load(arguments.recipe, arguments.overrides);
    if (!arguments.explain.empty()) return rank == 0 ? explain(recipe, arguments.explain) : kDone;
    read_job(recipe, config);
    if (!arguments.check) install_stop_signals(launched_by_mpi());
    world = world_communicator();
    return run_job(arguments, recipe, config, *world);
  } catch (const Stopped& stop) {  // the other ranks have left the job too, or wait for its end
    if (rank == 0 && !arguments.quiet) fmt::print(stderr, "{}; the same command starts again\n", stop.what());
    return kStopped;
  } catch (...) {
    const auto [message, code] = describe_error(smaller_hint(config));
    print_once(rank, message);
    if (world && world->size() > 1) world->abort(code);
    return code;
  }
}

int tell_help(const CLI::App& app, const CLI::ParseError& help) {
  std::ostringstream text;
  const int code = app.exit(help, text, text);
  put_out(text.str());
  return code;
}

constexpr const char* kLogUsage = "trainer log RUN [--json] [--last N] [--follow]";

/// trainer log RUN ...
int run_log(int argc, char** argv) {
  std::string run;
  LogRequest request;
  CLI::App app{"Shows what the log of a run with train.estimator = \"spsa\" holds. It only reads.", "trainer log"};
  app.add_option("run", run, "the run's folder, or its log's")->required();
  app.add_flag("--json", request.as_json, "one JSON object, with every round");
  app.add_flag("--follow", request.follows, "go on with each round that is written, until the log has its END");
  app.add_option("--last", request.last, "rounds to list; default 10, with --json all")->check(CLI::NonNegativeNumber);
  if (launched_rank() != 0) return kDone;
  try {
    app.parse(argc, argv);
    return log_command(run, request);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return tell_help(app, error);
    print_once(0, UserError("command line", error.what(), kLogUsage).what());
    return kUserError;
  } catch (...) {
    const auto [message, code] = describe_error();
    print_once(0, message);
    return code;
  }
}

/// trainer simulate RECIPE [section.key=value ...] --nodes N: job = "simulate" of the recipe.
int run_simulate(int argc, char** argv) {
  Arguments arguments;
  std::optional<int64_t> nodes;
  CLI::App app{"Simulates a run of many loose nodes (docs/loose_nodes.md).", "trainer simulate"};
  app.add_option("recipe", arguments.recipe, "the recipe, a TOML file, with train.estimator = \"spsa\"")->required();
  app.add_option("overrides", arguments.overrides, "section.key=value, in place of what the recipe says");
  app.add_option("--nodes", nodes, "machines that take part, in place of simulate.nodes");
  app.add_flag("--check", arguments.check, "validate, print the plan and stop");
  app.add_flag("--quiet", arguments.quiet, "say nothing but errors");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return launched_rank() == 0 ? tell_help(app, error) : kDone;
    print_once(
        launched_rank(),
        UserError("command line", error.what(), "trainer simulate RECIPE [section.key=value ...] --nodes N").what());
    return kUserError;
  }
  arguments.overrides.emplace_back("job=simulate");
  if (nodes) arguments.overrides.push_back(fmt::format("simulate.nodes={}", *nodes));
  return run_recipe(arguments);
}

/// The arguments say what to do.
int run_command(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "log") return run_log(argc - 1, argv + 1);
  if (argc > 1 && std::string_view(argv[1]) == "simulate") return run_simulate(argc - 1, argv + 1);
  Arguments arguments;
  CLI::App app{"Trains and evaluates language models; driven by a TOML recipe. Keys: --explain all", "trainer"};
  app.footer(std::string(kLogUsage) +
             ": what the log of an SPSA run holds; a recipe of that name is ./log\n"
             "trainer simulate RECIPE --nodes N: a run of many loose nodes in one process; a recipe of that name is "
             "./simulate");
  app.add_option("recipe", arguments.recipe, "the recipe, a TOML file");
  app.add_option("overrides", arguments.overrides, "section.key=value, in place of what the recipe says");
  CLI::Option* check =
      app.add_flag("--check", arguments.check, "validate, print the plan (parameters, memory, traffic) and stop");
  CLI::Option* version = app.add_flag("--version", arguments.version, "print the version");
  app.add_flag("--json", arguments.json,
               "with --check: one JSON object; with --version: that of version, rules and instructions");
  app.add_flag("--show-batch", arguments.show_batch,
               "print the first batch decoded, with loss mask and document borders");
  app.add_option("--explain", arguments.explain, "explain a key (train.batch), a section (train) or all");
  app.add_option("--list", arguments.list, "list a kind: " + listed_kinds());
  app.add_flag("--quiet", arguments.quiet, "say nothing but errors");
  try {
    app.parse(argc, argv);
    if (arguments.json && check->count() + version->count() == 0)
      throw CLI::RequiresError("--json", "--check or --version");
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return launched_rank() == 0 ? tell_help(app, error) : kDone;
    print_once(launched_rank(), UserError("command line", error.what(), "trainer --help lists what there is").what());
    return kUserError;
  }
  try {
    const std::string text = arguments.version        ? version_text(arguments.json)
                             : arguments.list.empty() ? ""
                                                      : list_kind(arguments.list);
    if (!text.empty()) {
      if (launched_rank() == 0) put_out(text);
      return kDone;
    }
    if (arguments.recipe.empty() && !arguments.explain.empty()) {
      if (launched_rank() != 0) return kDone;
      Recipe recipe = Recipe::from_text("", "");
      return explain(recipe, arguments.explain);
    }
    if (arguments.recipe.empty())
      throw UserError("command line", "no recipe is given", "trainer RECIPE [section.key=value ...]; trainer --help");
  } catch (...) {
    const auto [message, code] = describe_error();
    print_once(launched_rank(), message);
    return code;
  }
  return run_recipe(arguments);
}

}  // namespace

int run_program(int argc, char** argv) {
  guard_process();
  const int code = run_command(argc, argv);
  try {
    finish_output();
  } catch (const UserError& error) {  // results in files are whole; what was to be read here is lost
    print_once(launched_rank(), error.what());
    return code == kDone ? kUserError : code;
  }
  return code;
}

}  // namespace tessera
