// job = "generate": continues prompts with the model and the adapter that a training left.

#include <algorithm>

#include "cli/datasets.h"
#include "cli/inputs.h"
#include "cli/model_settings.h"
#include "cli/notices.h"
#include "cli/outputs.h"
#include "cli/plan.h"
#include "cli/recipe_rules.h"
#include "cli/run_path.h"
#include "cli/trained_weights.h"
#include "cli/unread_keys.h"
#include "core/error.h"
#include "core/section_check.h"
#include "data/data_source.h"
#include "data/encoding.h"
#include "data/prompts.h"
#include "infer/expected_completion.h"
#include "infer/generate.h"
#include "infer/stop_ids.h"
#include "io/files.h"
#include "io/output.h"

namespace tessera {
namespace {

/// [generate]: what to continue, and how.
struct GenerateConfig {
  std::vector<std::string> prompts;
  std::filesystem::path prompts_file;
  int64_t limit = 0, max_new_tokens = 64;
  double temperature = 0, top_p = 1;
  int64_t top_k = 0, seed = 1, batch = 16;
  std::string output = "samples.jsonl";

  void visit(Fields& v) {
    v("prompts", prompts, anything(), "texts to continue", OnResume::free);
    v("prompts_file", prompts_file, anything(),
      "texts to continue: .jsonl records, or a text file with one prompt a line; without prompts and prompts_file: the held-out data",
      OnResume::free);
    v("limit", limit, at_least(0), "continue only the first prompts; 0: all", OnResume::free);
    v("max_new_tokens", max_new_tokens, in_range(1, 1 << 20),
      "tokens of a continuation at most; end-of-text ends it earlier", OnResume::free);
    v("temperature", temperature, at_least(0),
      "divides the logits before a token is drawn; 0: always the most likely token", OnResume::free);
    v("top_k", top_k, at_least(0), "draw among the k most likely tokens; 0: all", OnResume::free);
    v("top_p", top_p, in_range(0, 1),
      "draw among the fewest most likely tokens that have this share of the probability", OnResume::free);
    v("seed", seed, at_least(0), "of the draws", OnResume::free);
    v("batch", batch, in_range(1, 4096), "prompts that are continued together", OnResume::free);
    v("output", output, anything(), "name of a .jsonl file inside the run's folder: one JSON record a prompt",
      OnResume::free);
  }
  void check(SectionCheck&) const;

  /// @param stop  ids that end a continuation
  GenerateOptions options(std::vector<int32_t> stop) const {
    return {.max_new_tokens = max_new_tokens,
            .sampling = {.temperature = temperature, .top_k = top_k, .top_p = top_p},
            .seed = static_cast<uint64_t>(seed),
            .stop = std::move(stop),
            .batch = batch};
  }
};

void GenerateConfig::check(SectionCheck& own) const {
  const std::filesystem::path file = output;
  if (output.size() > 255)
    own.fault("output", fmt::format("generate.output is a name of {} bytes", output.size()),
              "a file's name has 255 at most");
  if (file.filename() != file || file.extension() != ".jsonl" || output == "metrics.jsonl")
    own.fault("output", fmt::format("generate.output is \"{}\"", output),
              "give a plain file name that ends in .jsonl, and not metrics.jsonl: it is written into the run's folder");
}

const GenerateConfig& config_of(const JobInputs& in) { return in.config.own.of<GenerateConfig>(); }

std::vector<TextExample> examples_of(const JobInputs& in) {
  const GenerateConfig& g = config_of(in);
  std::vector<TextExample> examples;
  if (!g.prompts.empty()) {
    for (const std::string& prompt : g.prompts) examples.push_back({prompt, ""});
  } else if (!g.prompts_file.empty()) {
    examples = load_prompts(g.prompts_file, in.config.data, g.limit);
  } else {
    if (!in.config.data.has_eval())
      throw UserError(in.recipe.where("generate", ""), "there is nothing to continue",
                      "give generate.prompts, generate.prompts_file or data.eval");
    examples = load_examples(in.config.data, Split::eval, g.limit);
    if (examples.empty())
      throw UserError(in.config.data.eval.string(), "the file holds no prompts", "write one a line");
  }
  if (g.limit > 0 && static_cast<int64_t>(examples.size()) > g.limit) examples.resize(static_cast<size_t>(g.limit));
  return examples;
}

/// The prompts that have tokens, and what became of all of them.
struct Asked {
  std::vector<std::vector<int32_t>> prompts;  // those with tokens
  std::vector<size_t> numbers;                // of these among all
  std::vector<Generated> results;             // of all
  std::vector<int32_t> stop;                  // ids that end a continuation

  Asked(const JobInputs& in, const Tokenizer& tokenizer, const std::vector<TextExample>& examples)
      : results(examples.size()) {
    for (size_t i = 0; i < examples.size(); ++i) {
      std::vector<int32_t> tokens = encode_prompt(tokenizer, in.config.data, examples[i].prompt);
      if (tokens.empty()) {
        results[i] = {
            {},
            Finish::failed,
            "the prompt has no tokens, and this tokenizer puts none in front of a text: give texts to continue in "
            "generate.prompts"};
        continue;
      }
      prompts.push_back(std::move(tokens));
      numbers.push_back(i);
    }
  }

  int64_t longest() const {
    size_t longest = 0;
    for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
    return static_cast<int64_t>(longest);
  }
};

JobPlan plan_of_prompts(const JobInputs& in, const Asked& asked) {
  const GenerateConfig& config = config_of(in);
  JobPlan plan = plan_of_results(in, asked.longest() + config.max_new_tokens);
  plan.memory.activations = plan_generation_bytes(*plan.model, asked.prompts, config.options({}), in.threads);
  plan.one_rank = true;
  return plan;
}

/// Continues all prompts that have tokens.
void answer(const JobInputs& in, const Tokenizer& tokenizer, const MemoryPlan& memory, Asked& asked) {
  const GenerateConfig& config = config_of(in);
  const int64_t most = asked.longest() + config.max_new_tokens;
  const Model::Settings settings = trained_model_settings(in, most);
  Model model(settings);
  for (const auto& prompt : asked.prompts)
    for (const int32_t id : prompt) require_known_token(in, model, tokenizer, id);
  tell(in, model.sharing().caution());
  tell(in, length_notice(model, "prompts and continuations", most));
  use_trained_weights(in, model);
  asked.stop = stop_ids({settings.model.path, in.config.model.path}, tokenizer);
  const GenerateOptions options = config.options(asked.stop);
  const Compute compute(compute_choice(in), memory.activations);
  const Context& ctx = compute;
  model.assemble(ctx);
  std::vector<Generated> results = generate(ctx, model, asked.prompts, options);
  const auto failed = [](const Generated& result) { return result.finish == Finish::failed; };
  const bool any_failed = std::any_of(results.begin(), results.end(), failed);
  const std::string broken = any_failed ? model.broken_base_weight() : "";
  for (size_t i = 0; i < results.size(); ++i) {
    if (failed(results[i]) && !broken.empty()) results[i].fault += ": " + broken;
    asked.results[asked.numbers[i]] = std::move(results[i]);
  }
}

/// What samples.jsonl says of each prompt, and what is told of all.
struct Samples {
  std::string lines, shown;
  int64_t exact = 0, asked = 0;
  int64_t too_long = 0;  // of these, with more tokens than a continuation may have
};

Samples samples_of(const JobInputs& in, const Tokenizer& tokenizer, const std::vector<TextExample>& examples,
                   const Asked& asked) {
  Samples samples;
  std::vector<std::vector<int32_t>> prompts(examples.size());
  for (size_t i = 0; i < asked.numbers.size(); ++i) prompts[asked.numbers[i]] = asked.prompts[i];
  for (size_t i = 0; i < examples.size(); ++i) {
    const Generated& result = asked.results[i];
    const std::string text = tokenizer.decode_after(prompts[i], result.ids, true);
    Json line =
        Json::object().set("prompt", examples[i].prompt).set("completion", text).set("finish", name_of(result.finish));
    if (!result.fault.empty()) line.set("fault", result.fault);
    // A text without a prompt is no answer to anything: it is data to train on.
    if (!examples[i].prompt.empty() && !examples[i].completion.empty()) {
      const ExpectedCompletion expected = expected_completion(tokenizer, in.config.data, examples[i], asked.stop);
      const bool right = is_right(tokenizer, prompts[i], expected, result);
      line.set("expected", tokenizer.decode_after(prompts[i], expected.ids, true)).set("exact", right);
      samples.too_long += std::ssize(expected.ids) + expected.ends > config_of(in).max_new_tokens;
      samples.exact += right;
      ++samples.asked;
    }
    samples.lines += line.dump() + "\n";
    samples.shown += fmt::format("{}{}\n", examples[i].prompt, text);
  }
  return samples;
}

/// @throws UserError naming the first prompt that could not be continued
void report_faults(const std::vector<Generated>& results, const std::filesystem::path& file) {
  const auto failed = [](const Generated& result) { return result.finish == Finish::failed; };
  const auto first = std::find_if(results.begin(), results.end(), failed);
  if (first == results.end()) return;
  throw UserError(
      fmt::format("prompt {}", first - results.begin() + 1), first->fault,
      fmt::format("{} of {} prompts could not be continued; all are in {}, these with what went wrong as \"fault\"",
                  std::count_if(results.begin(), results.end(), failed), results.size(), file.string()));
}

JobPlan plan_generate(const JobInputs& in) {
  const Tokenizer tokenizer = Tokenizer::load(in.config.model.tokenizer_folder());
  return plan_of_prompts(in, Asked(in, tokenizer, examples_of(in)));
}

std::string smaller_generation(const JobConfig& config, const MemoryPlan& plan) {
  if (!matters(plan.activations + plan.tables, plan)) return "use a machine with more memory";
  return config.own.of<GenerateConfig>().batch > 1 ? "lower generate.max_new_tokens or generate.batch"
                                                   : "lower generate.max_new_tokens";
}

int continue_prompts(const JobInputs& in) {
  if (in.world.rank() != 0) return kDone;  // plain: one rank does it
  require_free_outputs(in);
  const GenerateConfig& config = config_of(in);
  const Tokenizer tokenizer = Tokenizer::load(in.config.model.tokenizer_folder());
  for (const std::string& notice : reading_notices(tokenizer, in.config.data)) tell(in, notice);
  const std::vector<TextExample> examples = examples_of(in);
  Asked asked(in, tokenizer, examples);
  const MemoryPlan memory = asked.prompts.empty() ? MemoryPlan{} : require_memory(in, plan_of_prompts(in, asked));
  RunFolder folder(run_folder_path(in), "auto", teller(in));
  tell(in, folder.notice());
  refuse_overwritten_inputs(in, folder.path());
  std::vector<int32_t> tokens;
  for (const auto& prompt : asked.prompts) tokens.insert(tokens.end(), prompt.begin(), prompt.end());
  tell(in, unknown_words(tokens, tokenizer, "prompts'", in.config.model));
  if (!asked.prompts.empty()) answer(in, tokenizer, memory, asked);

  const Samples samples = samples_of(in, tokenizer, examples, asked);
  const std::filesystem::path file = folder / config.output;
  write_text_file(file, samples.lines);  // first: whoever reads what is printed may have gone
  if (!in.quiet && !config.prompts.empty()) print_out("{}", samples.shown);
  if (samples.too_long > 0)
    tell(in, fmt::format("note: {} of {} expected completions have more tokens, their end included, than "
                         "generate.max_new_tokens={}: they cannot come out right",
                         samples.too_long, samples.asked, config.max_new_tokens));
  if (samples.asked > 0)
    print_out("completions right: {} of {} ({:.1f} %)\n", samples.exact, samples.asked,
              100.0 * static_cast<double>(samples.exact) / static_cast<double>(samples.asked));
  if (!in.quiet) print_out("samples: {}\n", file.string());
  report_faults(asked.results, file);
  return kDone;
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
  if (g.temperature == 0)
    notes.add("generate", said, {"top_k", "top_p", "seed"},
              "generate.temperature is 0, which always takes the most likely token");
  if (!g.prompts.empty()) notes.add("generate", said, {"prompts_file"}, "generate.prompts is given");
}

}  // namespace

Job generate_job() {
  return {.name = "generate",
          .help = "continue prompts",
          .run = continue_prompts,
          .plan = plan_generate,
          .smaller = smaller_generation,
          .reads_data = true,
          .reads_results = true,
          .read = [](Recipe& recipe, JobConfig& c) { recipe.read("generate", c.own.of<GenerateConfig>()); },
          .check = check_prompts,
          .note_unread = note_unread_keys,
          .inputs =
              [](const JobConfig& c) {
                return std::vector{
                    std::pair{std::string("generate.prompts_file"), c.own.of<GenerateConfig>().prompts_file}};
              },
          .outputs = [](const JobConfig& c) { return std::vector{c.own.of<GenerateConfig>().output}; }};
}

}  // namespace tessera
