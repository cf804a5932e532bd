// job = "generate": answers requests with the model and the adapter that a training left, and with adapters by name.
//
//   prompts, a file, held-out data ─► requests ─► plan of the batch ─► engine ─► lines, in the order in which they end
//                                                                       └─► journal ─► samples.jsonl, in input order
// Prompts that the recipe itself holds have no journal: they are few, and the next ones take their place.

#include <algorithm>
#include <chrono>

#include "cli/datasets.h"
#include "cli/inputs.h"
#include "cli/jobs/generate_config.h"
#include "cli/jobs/generate_lines.h"
#include "cli/memory_limit.h"
#include "cli/model_settings.h"
#include "cli/notices.h"
#include "cli/outputs.h"
#include "cli/plan.h"
#include "cli/recipe_rules.h"
#include "cli/run_path.h"
#include "cli/trained_weights.h"
#include "cli/unread_keys.h"
#include "core/error.h"
#include "data/data_source.h"
#include "data/encoding.h"
#include "infer/engine.h"
#include "infer/requests/request_file.h"
#include "infer/stop_ids.h"
#include "io/files.h"
#include "io/output.h"
#include "model/adapter_io.h"

namespace tessera {
namespace {

const GenerateConfig& config_of(const JobInputs& in) { return in.config.own.of<GenerateConfig>(); }

/// The requests of a recipe, tokenised and checked, with what they are asked of.
struct Asked {
  Tokenizer tokenizer;
  std::vector<int32_t> eos;
  RequestFile file;
  NamedAdapters adapters{};
  std::vector<std::string> notes{};  // of the adapters
  bool is_inline = false;            // the recipe itself holds the prompts

  int64_t positions() const {  // the most that a request takes
    int64_t most = 1;
    for (const Request& r : file.requests) most = std::max(most, std::ssize(r.prompt) + r.max_tokens);
    return most;
  }
};

RequestDefaults defaults_of(const JobInputs& in, const ModelConfig& model, std::vector<int32_t> eos,
                            const NamedAdapters& adapters) {
  const GenerateConfig& g = config_of(in);
  const std::filesystem::path folder = in.config.model.path;
  RequestDefaults defaults;
  defaults.request = g.request();
  defaults.given = said_keys(g);
  defaults.eos = std::move(eos);
  defaults.ignore_eos = g.ignore_eos;
  defaults.seed = static_cast<uint64_t>(g.seed);
  defaults.adapters = adapters.names();
  defaults.model_name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  defaults.vocab_size = model.vocab_size;
  defaults.max_position = model.max_position_embeddings;
  return defaults;
}

RequestFile read(const JobInputs& in, const Tokenizer& tokenizer, const RequestDefaults& defaults) {
  const GenerateConfig& g = config_of(in);
  const DataConfig& data = in.config.data;
  if (g.prompts.empty() && !g.prompts_file.empty())
    return read_requests(g.prompts_file, g.kind, data, tokenizer, defaults, g.limit);
  std::vector<TextExample> examples;
  std::string place = "generate.prompts";
  for (const std::string& prompt : g.prompts) examples.push_back({prompt, ""});
  if (g.prompts.empty()) {
    if (!data.has_eval())
      throw UserError(in.recipe.where("generate", ""), "there is nothing to continue",
                      "give generate.prompts, generate.prompts_file or data.eval");
    examples = load_examples(data, Split::eval, g.limit);
    place = data.eval.empty() ? data.train.string() : data.eval.string();
    if (examples.empty()) throw UserError(place, "the file holds no prompts", "write one a line");
  }
  if (g.limit > 0 && std::ssize(examples) > g.limit) examples.resize(static_cast<size_t>(g.limit));
  return requests_of(examples, place, data, tokenizer, defaults);
}

Asked ask(const JobInputs& in) {
  Asked asked{.tokenizer = Tokenizer::load(in.config.model.tokenizer_folder()), .eos = {}, .file = {}};
  const JobPlan laid_out = plan_of_results(in, 1);
  const Model& model = *laid_out.model;
  asked.eos = stop_ids({model.options().path, in.config.model.path}, asked.tokenizer);
  asked.adapters = NamedAdapters(in, config_of(in).adapters);
  asked.file = read(in, asked.tokenizer, defaults_of(in, model.config(), asked.eos, asked.adapters));
  asked.notes = asked.adapters.notes(*laid_out.model, asked.file.requests);
  // Without an adapter "base" is what answers anyway.
  if (!model.adapter())
    for (Request& request : asked.file.requests)
      if (request.adapter == "base") request.adapter.clear();
  asked.is_inline = !config_of(in).prompts.empty();
  return asked;
}

/// What a batch takes, and how it is computed.
struct Planned {
  BatchPlan batch;
  EngineMemory memory;
  JobPlan job;
};

/// Memory that keys and values may have, beside what the job takes otherwise.
/// @param adapters  bytes of the named ones, which the plan has already
int64_t page_memory(const JobInputs& in, const JobPlan& plan, int64_t adapters) {
  const GenerateConfig& g = config_of(in);
  if (g.memory_gib > 0)
    return std::max<int64_t>(
        0, std::min(static_cast<int64_t>(g.memory_gib * (int64_t{1} << 30)), node_memory_limit().bytes) - adapters);
  const int64_t taken = plan.memory.owned() + plan.memory.mapped + held_bytes();
  const int64_t machine = node_memory_limit().bytes - taken,
                process = process_memory_limit().bytes - plan.memory.owned();
  return std::max<int64_t>(0, std::min(machine, process) / 10 * 8);
}

/// A batch of these requests of the file.
Planned plan_requests(const JobInputs& in, const Asked& asked, std::span<const Request> requests) {
  const EngineOptions options = config_of(in).engine();
  Planned planned{.batch = {}, .memory = {}, .job = plan_of_results(in, asked.positions())};
  Model& model = *planned.job.model;
  planned.batch = plan_batch(requests, options.prefix, options.page_tokens, model.decoder().max_position(), in.threads,
                             asked.adapters.batch(model, options.max_step_adapters));
  const AdaptersAtWork adapters(asked.adapters, model, requests);
  planned.job.memory.assembled += adapters.bytes();
  const int64_t memory = page_memory(in, planned.job, adapters.bytes());
  planned.memory = plan_engine_memory(model, planned.batch, options, in.threads, memory, adapters.by_name());
  const int64_t largest = planned.batch.most_bundles * planned.memory.bundle_bytes;
  if (config_of(in).memory_gib > 0 && largest > memory)
    throw UserError(in.recipe.where("generate", "memory_gib"),
                    fmt::format("request {} alone needs {} of keys and values, and {} are allowed{}",
                                planned.batch.largest + 1, megabytes(largest), megabytes(memory),
                                adapters.bytes() > 0 ? " beside adapters of " + megabytes(adapters.bytes()) : ""),
                    "raise generate.memory_gib, lower generate.max_new_tokens, take a smaller generate.kv_dtype, or, "
                    "where its prompt is cut into many short prefixes, set generate.prefix = \"off\"");
  planned.job.memory.activations = planned.memory.bytes();
  planned.job.one_rank = true;
  return planned;
}

JobPlan plan_generate(const JobInputs& in) {
  const Asked asked = ask(in);
  Planned planned = plan_requests(in, asked, asked.file.requests);
  const PrefixStatistics& s = planned.batch.statistics;
  planned.job.notes.push_back(fmt::format(
      "{} requests in {} groups ({:.1f} each, {} levels): {:.1f} tokens of a prompt are shared, {:.1f} its own",
      s.requests, s.groups, s.sharing_degree(), s.levels, s.prefix_mean(), s.distinct_mean()));
  planned.job.notes.push_back(
      fmt::format("{} tokens of prompts, {} to compute: {:.1f} % saved; {} bundles of pages at most, of {} each",
                  s.logical, s.physical, s.saving(), planned.memory.bundles, megabytes(planned.memory.bundle_bytes)));
  asked.adapters.require_base(*planned.job.model);
  planned.job.notes.insert(planned.job.notes.end(), asked.notes.begin(), asked.notes.end());
  return std::move(planned.job);
}

/// A line of progress on stderr every few seconds.
class Progress {
 public:
  Progress(const JobInputs& in, int64_t requests, int64_t tokens) : in_(in), requests_(requests), tokens_(tokens) {}

  void show(const EngineCounts& counts) {
    constexpr std::chrono::seconds kEvery{5};
    const auto now = Clock::now();
    if (now - shown_ < kEvery) return;
    shown_ = now;
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    tell(in_, fmt::format("{} of {} requests, {} of {} prompt tokens computed, {:.1f} tokens/s computed, {:.1f} new "
                          "tokens/s, {} of {} pages",
                          counts.finished, requests_, counts.schedule.computed, tokens_,
                          static_cast<double>(counts.schedule.computed) / seconds,
                          static_cast<double>(counts.generated) / seconds, counts.pages_in_use, counts.pages_total));
  }

 private:
  using Clock = std::chrono::steady_clock;
  const JobInputs& in_;
  int64_t requests_, tokens_;
  Clock::time_point begin_ = Clock::now(), shown_ = begin_;
};

/// A prefix of null: the joint form is never taken.
Json json_of(const std::vector<Crossover::Point>& points) {
  Json all = Json::array();
  for (const auto& [rows, prefix] : points)
    all.push_back(Json::object().set("rows", rows).set("prefix", prefix == Crossover::kNever ? Json() : Json(prefix)));
  return all;
}

/// generate_report.json: what the run did, with times and counts of reuse, which are in no answer.
void write_report(const JobInputs& in, const std::filesystem::path& run, const Planned& planned,
                  const EngineCounts& counts, double seconds) {
  const Json tokens = Json::object()
                          .set("logical", planned.batch.statistics.logical)
                          .set("computed", counts.schedule.computed)
                          .set("recomputed", counts.schedule.recomputed)
                          .set("generated", counts.generated)
                          .set("scored", counts.scored);
  const Json report = Json::object()
                          .set("requests", counts.finished)
                          .set("failed", counts.failed)
                          .set("tokens", tokens)
                          .set("pages_peak", counts.pages_peak)
                          .set("pages_total", counts.pages_total)
                          .set("seconds", seconds)
                          .set("planning_seconds", counts.planning_seconds)
                          .set("steps", counts.schedule.steps)
                          .set("preemptions", counts.schedule.preemptions)
                          .set("new_tokens_per_second", static_cast<double>(counts.generated) / seconds)
                          .set("deterministic", config_of(in).deterministic)
                          .set("kv_bytes_read", counts.kv_bytes_read)
                          .set("crossover", json_of(counts.crossover));
  write_text_file(run / "generate_report.json", report.dump(2) + "\n");
}

/// Answers the requests that are left. @param whole  the plan of all
void answer(const JobInputs& in, const std::filesystem::path& run, const Asked& asked, const Planned& whole,
            Model& model, GenerateLines& lines) {
  std::vector<Request> left;
  std::vector<size_t> numbers;  // of these among all
  for (size_t i = 0; i < asked.file.requests.size(); ++i) {
    if (lines.has(i)) continue;
    left.push_back(asked.file.requests[i]);
    numbers.push_back(i);
  }
  if (left.empty()) return;
  const bool is_whole = left.size() == asked.file.requests.size();
  const std::span<const Request> requests = is_whole ? asked.file.requests : left;
  std::optional<Planned> rest;
  if (!is_whole) rest = plan_requests(in, asked, requests);
  const Planned& planned = is_whole ? whole : *rest;
  EngineOptions options = config_of(in).engine();
  options.cumulative_logprobs = asked.file.kind == RequestKind::batch;
  const Compute compute(compute_choice(in), planned.memory.bytes());
  model.assemble(compute);
  Progress progress(in, std::ssize(requests), planned.batch.tree.tokens());
  const EngineHooks hooks{.finished =
                              [&](int32_t r, RequestResult&& result) {
                                const size_t number = numbers[static_cast<size_t>(r)];
                                // A function of the whole batch, however much of it is left.
                                result.cached_tokens = whole.batch.cached[number];
                                lines.add(number, std::move(result));
                              },
                          .stepped =
                              [&](const EngineCounts& counts) {
                                lines.sync();
                                progress.show(counts);
                              }};
  AdaptersAtWork adapters(asked.adapters, model, requests);
  adapters.assemble(compute);
  const auto begin = std::chrono::steady_clock::now();
  const EngineCounts counts = run_engine(compute, model, requests, planned.batch, options, planned.memory.bundles,
                                         adapters.by_name(), &asked.tokenizer, hooks);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  write_report(in, run, planned, counts, taken.count());
  if (counts.failed > 0) lines.note_broken_weight(model.broken_base_weight());
}

std::string smaller_generation(const JobConfig& config, const MemoryPlan& plan) {
  if (!matters(plan.activations + plan.tables, plan)) return "use a machine with more memory";
  return config.own.of<GenerateConfig>().max_new_tokens > 1 ? "lower generate.max_new_tokens or generate.memory_gib"
                                                            : "lower generate.memory_gib";
}

/// @throws UserError when prompts of the recipe would be written over the answers of a file of requests
void refuse_kept_answers(const JobInputs& in, const std::filesystem::path& run) {
  if (config_of(in).output != GenerateConfig{}.output || !std::filesystem::exists(run / "journal")) return;
  throw UserError(
      (run / config_of(in).output).string(), "belongs to a file of requests, whose answers are in the journal",
      fmt::format("set generate.output to another name for these prompts, set run.dir to another folder, or "
                  "remove {} with its answers",
                  (run / "journal").string()));
}

int answer_requests(const JobInputs& in) {
  if (in.world.rank() != 0) return kDone;  // plain: one rank does it
  require_free_outputs(in);
  const GenerateConfig& config = config_of(in);
  const Asked asked = ask(in);
  for (const std::string& notice : reading_notices(asked.tokenizer, in.config.data)) tell(in, notice);
  for (const std::string& notice : asked.file.notices) tell(in, notice);
  if (!config.prompts_file.empty() && config.prompts.empty())
    tell(in, fmt::format("{} holds {} requests, read as {}", config.prompts_file.string(), asked.file.requests.size(),
                         name_of(asked.file.kind)));
  const Planned whole = plan_requests(in, asked, asked.file.requests);
  require_memory(in, whole.job);
  RunFolder folder(run_folder_path(in), "auto", teller(in));
  tell(in, folder.notice());
  refuse_overwritten_inputs(in, folder.path());
  std::vector<int32_t> tokens;
  for (const Request& request : asked.file.requests)
    tokens.insert(tokens.end(), request.prompt.begin(), request.prompt.end());
  tell(in, unknown_words(tokens, asked.tokenizer, "prompts'", in.config.model));

  if (asked.is_inline) refuse_kept_answers(in, folder.path());
  GenerateLines lines(in, folder.path(), asked.tokenizer, asked.file, asked.eos, asked.is_inline);
  Model model(trained_model_settings(in, asked.positions()));
  tell(in, model.sharing().caution());
  tell(in, length_notice(model, "prompts and continuations", asked.positions()));
  use_trained_weights(in, model);
  asked.adapters.require_base(model);
  lines.begin(model, asked.adapters.contents_of(asked.file.requests));
  answer(in, folder.path(), asked, whole, model, lines);
  return lines.end();
}

void check_prompts(Recipe& recipe, const JobConfig& c) {
  const GenerateConfig& g = c.own.of<GenerateConfig>();
  const DataConfig& data = c.data;
  if (g.prompts.empty() && g.prompts_file.empty()) {
    if (!data.has_eval())
      recipe.fault("generate", "", "there is nothing to continue",
                   "give generate.prompts, generate.prompts_file or data.eval");
    if (data.eval.empty() && data.eval_fraction > 0) require_train_data(recipe, data);
  }
  if (g.prompts.empty()) check_data_file(recipe, c, g.prompts_file, "generate", "prompts_file");
}

void note_unread_keys(const JobConfig& c, UnreadNotes& notes) {
  const GenerateConfig& g = c.own.of<GenerateConfig>();
  const std::set<std::string> said = said_keys(g);
  // Lines of a file of requests may say another temperature.
  if (g.temperature == 0 && (!g.prompts.empty() || g.prompts_file.empty()))
    notes.add("generate", said, {"top_k", "top_p", "min_p", "typical_p", "seed"},
              "generate.temperature is 0, which always takes the most likely token");
  if (g.num_beams == 1 && (!g.prompts.empty() || g.prompts_file.empty()))
    notes.add("generate", said, {"length_penalty", "early_stopping"},
              "generate.num_beams is 1, which searches nothing");
  if (!g.prompts.empty()) notes.add("generate", said, {"prompts_file", "kind"}, "generate.prompts is given");
}

/// A file that the command line names stands above prompts that the recipe's file holds.
void read_generate(Recipe& recipe, JobConfig& c) {
  GenerateConfig& g = c.own.of<GenerateConfig>();
  recipe.read("generate", g);
  read_adapter_folders(recipe, g.adapters);
  if (!g.adapter.empty() && g.adapter != "base" && !g.adapters.by_name.contains(g.adapter))
    recipe.fault("generate", "adapter", fmt::format("generate.adapter is \"{}\", which is no adapter here", g.adapter),
                 "name one of [generate.adapters], or \"base\"");
  const auto is_typed = [&](const char* key) { return recipe.where("generate", key).starts_with("command line"); };
  if (!g.prompts_file.empty() && is_typed("prompts_file") && !is_typed("prompts")) g.prompts.clear();
}

}  // namespace

Job generate_job() {
  return {.name = "generate",
          .help = "answer requests: continue prompts, or score them",
          .run = answer_requests,
          .plan = plan_generate,
          .smaller = smaller_generation,
          .reads_data = true,
          .reads_results = true,
          .read = read_generate,
          .check = check_prompts,
          .note_unread = note_unread_keys,
          .inputs =
              [](const JobConfig& c) {
                const GenerateConfig& g = c.own.of<GenerateConfig>();
                std::vector inputs{std::pair{std::string("generate.prompts_file"), g.prompts_file}};
                for (const auto& [name, folder] : g.adapters.by_name)
                  inputs.emplace_back("generate.adapters." + name, adapter_folder(folder));
                return inputs;
              },
          .outputs =
              [](const JobConfig& c) {
                const GenerateConfig& g = c.own.of<GenerateConfig>();
                std::vector<std::string> names = {g.output, "generate_report.json", "journal/"};
                if (!g.follow.empty()) names.push_back(g.follow);
                return names;
              }};
}

}  // namespace tessera
