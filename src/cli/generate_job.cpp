// job = "generate": continues prompts with the model and the adapter that a training left.

#include <algorithm>
#include <sstream>

#include "cli/results.h"
#include "infer/generate.h"
#include "io/files.h"
#include "kernels/table.h"

namespace tessera {
namespace {

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \n\r\t");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \n\r\t") + 1 - begin);
}

std::vector<TextExample> lines_of(const std::filesystem::path& file) {
  std::vector<TextExample> examples;
  std::istringstream text(read_text_file(file));
  for (std::string line; std::getline(text, line);)
    if (!trimmed(line).empty()) examples.push_back({trimmed(line), ""});
  return examples;
}

std::vector<TextExample> examples_of(const JobInputs& in) {
  const GenerateConfig& g = in.config.generate;
  std::vector<TextExample> examples;
  if (!g.prompts.empty()) {
    for (const std::string& prompt : g.prompts) examples.push_back({prompt, ""});
  } else if (!g.prompts_file.empty() && g.prompts_file.extension() != ".jsonl") {
    examples = lines_of(g.prompts_file);
  } else {
    DataConfig data = in.config.data;
    if (!g.prompts_file.empty()) data.eval = g.prompts_file;
    if (data.eval.empty() && data.eval_fraction == 0)
      throw UserError(in.recipe.where("generate", ""), "there is nothing to continue",
                      "give generate.prompts, generate.prompts_file or data.eval");
    examples = load_examples(data, Split::eval, g.limit);
  }
  if (examples.empty()) throw UserError(g.prompts_file.string(), "the file holds no prompts", "write one a line");
  if (g.limit > 0 && static_cast<int64_t>(examples.size()) > g.limit) examples.resize(static_cast<size_t>(g.limit));
  return examples;
}

}  // namespace

int generate_job(const JobInputs& in) {
  if (in.world.rank() != 0) return kDone;  // plain: one rank does it
  const GenerateConfig& config = in.config.generate;
  const Tokenizer tokenizer = Tokenizer::load(in.config.model.tokenizer_folder());
  const auto examples = examples_of(in);
  std::vector<std::vector<int32_t>> prompts;
  int64_t longest = 0;
  for (const TextExample& example : examples) {
    prompts.push_back(encode_prompt(tokenizer, in.config.data, example.prompt));
    longest = std::max(longest, static_cast<int64_t>(prompts.back().size()));
  }
  Model model(trained_model_settings(in, longest + config.max_new_tokens));
  for (const auto& prompt : prompts)
    for (const int32_t id : prompt) require_known_token(in, model, tokenizer, id);
  use_trained_adapter(in, model);
  const GenerateOptions options =
      config.options(tokenizer.eos() ? std::vector<int32_t>{*tokenizer.eos()} : std::vector<int32_t>{});
  Arena arena(plan_generation_bytes(model, prompts, options, in.threads));
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, in.config.run.backend),
                    .scratch = arena,
                    .threads = in.threads};
  model.assemble(ctx);
  const auto outputs = generate(ctx, model, prompts, options);

  RunFolder folder(run_folder_path(in), "auto");
  std::string samples;
  int64_t exact = 0, asked = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const std::string text = tokenizer.decode(outputs[i].ids, true);
    Json line = Json::object()
                    .set("prompt", examples[i].prompt)
                    .set("completion", text)
                    .set("finish", name_of(outputs[i].finish));
    if (!examples[i].completion.empty()) {
      // A model that was never taught to end its answer is judged by the answer's beginning.
      const std::string expected = trimmed(examples[i].completion), found = trimmed(text);
      const bool right = tokenizer.add_eos() ? found == expected : found.compare(0, expected.size(), expected) == 0;
      line.set("expected", examples[i].completion).set("exact", right);
      exact += right;
      ++asked;
    }
    samples += line.dump() + "\n";
    if (!in.quiet && config.prompts.size() == outputs.size())
      fmt::print("{}{}{}\n", examples[i].prompt, text.empty() || text[0] == ' ' ? "" : " ", text);
  }
  write_text_file(folder / config.output, samples);
  if (asked > 0)
    fmt::print("completions right: {} of {} ({:.1f} %)\n", exact, asked,
               100.0 * static_cast<double>(exact) / static_cast<double>(asked));
  if (!in.quiet) fmt::print("samples: {}\n", (folder / config.output).string());
  return kDone;
}

}  // namespace tessera
