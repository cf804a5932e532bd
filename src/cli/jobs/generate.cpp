// job = "generate": answers requests with the model and the adapter that a training left, and with adapters by name.
//
//   prompts, a file, held-out data ─► requests ─► plan of the batch ─► engine ─► lines, in the order in which they end
//                                      └ each rank its share of them     └─► journal ─► samples.jsonl, in input order
// Prompts that the recipe itself holds have no journal: they are few, and the next ones take their place.

#include <algorithm>
#include <functional>
#include <memory>

#include "cli/agreement.h"
#include "cli/datasets.h"
#include "cli/inputs.h"
#include "cli/jobs/generate_check.h"
#include "cli/jobs/generate_config.h"
#include "cli/jobs/generate_lines.h"
#include "cli/jobs/generate_plan.h"
#include "cli/jobs/generate_report.h"
#include "cli/model_settings.h"
#include "cli/notices.h"
#include "cli/outputs.h"
#include "cli/plan.h"
#include "cli/recipe_rules.h"
#include "cli/run_path.h"
#include "cli/trained_weights.h"
#include "cli/unread_keys.h"
#include "core/error.h"
#include "core/stop.h"
#include "data/data_source.h"
#include "data/encoding.h"
#include "infer/engine.h"
#include "infer/rank_reports.h"
#include "infer/requests/request_file.h"
#include "infer/stop_ids.h"
#include "io/files.h"
#include "io/output.h"
#include "model/adapter_io.h"

namespace tessera {
namespace {

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
  asked.figures = asked.adapters.figures(*laid_out.model, asked.file.requests);
  // Without an adapter "base" is what answers anyway.
  if (!model.adapter())
    for (Request& request : asked.file.requests)
      if (request.adapter == "base") request.adapter.clear();
  asked.is_inline = !config_of(in).prompts.empty();
  return asked;
}

/// What the journal says, as far as a model without values can tell. On rank 0.
int64_t look_into_journal(const JobInputs& in, const Asked& asked, JobPlan& plan) {
  if (in.world.rank() != 0) return 0;
  try {
    GenerateLines lines(in, run_folder_path(in), asked.tokenizer, asked.file, asked.eos, asked.is_inline);
    return lines.look(*plan.model, asked.adapters.contents_of(asked.file.requests));
  } catch (const UserError& error) {
    plan.notes.push_back(fmt::format("note: as things stand the job would end with: {}", error.what()));
    return 0;
  }
}

JobPlan plan_generate(const JobInputs& in) {
  const Asked asked = ask(in);
  Planned planned = plan_requests(in, asked, all_of(asked.file));
  const DecoderModel& decoder = planned.job.model->decoder();
  GenerateFigures figures{.statistics = planned.statistics,
                          .new_tokens = planned.new_tokens,
                          .memory = planned.largest,
                          .pages_per_bundle = decoder.num_layers() * decoder.config().num_key_value_heads,
                          .ranks = in.world.size(),
                          .to_compute = planned.to_compute};
  figures.done = look_into_journal(in, asked, planned.job);
  tell_figures(asked.file, figures, planned.job);
  asked.adapters.require_base(*planned.job.model);
  for (const AdapterFigures& adapter : asked.figures) planned.job.notes.push_back(adapter.line());
  if (!asked.figures.empty()) planned.job.told.set("adapters", to_json(asked.figures));
  return std::move(planned.job);
}

/// How this rank's share went.
struct Share {
  bool is_done = true;  // else it was stopped
  EngineCounts counts{};
  double optimum_seconds = 0;  // 0: not known
};

Share answer_share(const JobInputs& in, const Asked& asked, const Planned& whole, const Planned& planned, Model& model,
                   GenerateLines& lines, const std::function<void(const EngineCounts&)>& stepped) {
  Share share;
  if (planned.share.empty()) {
    measure_rates(in, nullptr, nullptr, planned.batch);
    return share;
  }
  EngineOptions options = config_of(in).engine();
  options.cumulative_logprobs = asked.file.kind == RequestKind::batch;
  const Compute compute(compute_choice(in), planned.memory.bytes());
  const Context& ctx = compute;
  model.assemble(compute);
  LeastTime least(model, options.step_tokens);
  const MachineRates rates = measure_rates(in, &ctx, &least, planned.batch);
  const EngineHooks hooks{.finished =
                              [&](int32_t r, RequestResult&& result) {
                                const size_t number = planned.numbers[static_cast<size_t>(r)];
                                least.add(planned.share[static_cast<size_t>(r)], result);
                                // A function of the whole batch, however much of it is left.
                                result.cached_tokens = whole.cached[number];
                                lines.add(number, std::move(result));
                              },
                          .stepped =
                              [&](const EngineCounts& counts) {
                                share.counts = counts;
                                stepped(counts);
                              }};
  AdaptersAtWork adapters(asked.adapters, model, planned.share);
  adapters.assemble(compute);
  try {
    share.counts = run_engine(compute, model, planned.share, planned.batch, options, planned.memory.bundles,
                              adapters.by_name(), &asked.tokenizer, hooks);
  } catch (const Stopped&) {
    share.is_done = false;
  }
  share.optimum_seconds = least.seconds(planned.batch, share.counts, rates);
  return share;
}

/// Answers the requests that are left: each rank its share of them. @param whole  the plan of all
/// @throws Stopped on all ranks when any was asked to stop
void answer(const JobInputs& in, const std::filesystem::path& run, const Asked& asked, const Planned& whole,
            Model& model, GenerateLines& lines) {
  std::vector<size_t> left = lines.left();
  if (left.empty()) return;
  std::optional<Planned> rest;
  if (left.size() < asked.file.requests.size()) rest = plan_requests(in, asked, std::move(left));
  const Planned& planned = rest ? *rest : whole;
  GenerateProgress progress(in, planned);
  RankReports reports(in.world, [&](const NumberedLines& others) { lines.keep(others); });
  const Share mine = answer_share(in, asked, whole, planned, model, lines, [&](const EngineCounts& counts) {
    lines.sync();
    if (reports.tell(counts, lines.take_news(), stop_requested())) request_stop();
    progress.show(reports.counts());
  });
  if (!reports.end(mine.counts, mine.is_done, stop_requested, [&] { progress.show(reports.counts()); }))
    throw Stopped("stopped while generating");
  const double seconds = progress.seconds();
  if (reports.counts().failed > 0) lines.note_broken_weight(model.broken_base_weight());
  const double optimum = sum_over_ranks(in.world, {mine.optimum_seconds})[0] / in.world.size();
  if (in.world.rank() == 0)
    write_report(in, run, {planned.statistics, reports.counts(), seconds, optimum, lines.resumed(), in.world.size()});
}

std::string smaller_generation(const JobConfig& config, const MemoryPlan& plan) {
  if (!matters(plan.activations + plan.tables, plan)) return "use a machine with more memory";
  return config.own.of<GenerateConfig>().max_new_tokens > 1 ? "lower generate.max_new_tokens or generate.memory_gib"
                                                            : "lower generate.memory_gib";
}

/// @throws UserError when prompts of the recipe, or answers as they come, would be written over those of a file of
/// requests
void refuse_kept_answers(const JobInputs& in, const std::filesystem::path& run, bool is_inline) {
  const GenerateConfig& g = config_of(in);
  const std::optional<JournalHead> kept = RequestJournal::head_of(run);
  if (!kept) return;
  const auto refuse = [&](const char* key, const std::string& name) {
    if (name != kept->answers) return;
    throw UserError((run / name).string(), "belongs to a file of requests, whose answers are in the journal",
                    fmt::format("set generate.{} to another name, set run.dir to another folder, or remove {} with its "
                                "answers",
                                key, (run / "journal").string()));
  };
  if (is_inline) refuse("output", g.output);
  if (g.output != kept->answers) refuse("follow", g.follow);
}

/// Only rank 0 keeps the folder.
std::unique_ptr<RunFolder> open_folder(const JobInputs& in) {
  if (in.world.rank() != 0) return nullptr;
  auto folder = std::make_unique<RunFolder>(run_folder_path(in), "auto", teller(in));
  tell(in, folder->notice());
  refuse_overwritten_inputs(in, folder->path());
  return folder;
}

bool asks_for_equal_samples(const Request& request) {
  return request.n > 1 && request.sampling.temperature == 0 && request.beams.width == 1;
}

void tell_of_requests(const JobInputs& in, const Asked& asked) {
  const GenerateConfig& config = config_of(in);
  for (const std::string& notice : reading_notices(asked.tokenizer, in.config.data)) tell(in, notice);
  for (const std::string& notice : asked.file.notices) tell(in, notice);
  if (!config.prompts_file.empty() && config.prompts.empty())
    tell(in, fmt::format("{} holds {} requests, read as {}", config.prompts_file.string(), asked.file.requests.size(),
                         name_of(asked.file.kind)));
  if (const auto same = std::ranges::count_if(asked.file.requests, asks_for_equal_samples); same > 0)
    tell(in, fmt::format("note: {} of {} requests ask for several samples (n) at temperature 0: they are identical",
                         same, asked.file.requests.size()));
  std::vector<int32_t> tokens;
  for (const Request& request : asked.file.requests)
    tokens.insert(tokens.end(), request.prompt.begin(), request.prompt.end());
  tell(in, unknown_words(tokens, asked.tokenizer, "prompts'", in.config.model));
}

int answer_requests(const JobInputs& in) {
  require_free_outputs(in);
  const Asked asked = ask(in);
  require_equal(in.world, "the requests", in.world.size() > 1 ? batch_hash(asked.file) : "");
  tell_of_requests(in, asked);
  const Planned whole = plan_requests(in, asked, all_of(asked.file));
  require_memory(in, whole.job);
  const std::unique_ptr<RunFolder> folder = open_folder(in);
  const std::filesystem::path run = folder ? folder->path() : run_folder_path(in);
  if (folder) refuse_kept_answers(in, run, asked.is_inline);
  GenerateLines lines(in, run, asked.tokenizer, asked.file, asked.eos, asked.is_inline);
  Model model(trained_model_settings(in, asked.positions()));
  tell(in, model.sharing().caution());
  tell(in, length_notice(model, "prompts and continuations", asked.positions()));
  use_trained_weights(in, model);
  require_agreement(in, model);
  asked.adapters.require_base(model);
  const std::map<std::string, std::string> adapters = asked.adapters.contents_of(asked.file.requests);
  std::string contents;
  for (const auto& [name, hash] : adapters) contents += fmt::format("{} = {}\n", name, hash);
  require_equal(in.world, "the adapters", contents);
  lines.begin(model, adapters);
  try {
    answer(in, run, asked, whole, model, lines);
  } catch (const Stopped& stop) {
    const std::string state = in.world.rank() == 0 ? lines.state() : "";
    if (state.empty()) throw;
    tell(in, fmt::format("{}: {}; the same command goes on", stop.what(), state));
    return kStopped;
  }
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
