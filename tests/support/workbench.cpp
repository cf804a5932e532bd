#include "support/workbench.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <sstream>

namespace tessera::test {

namespace fs = std::filesystem;

namespace {

constexpr const char* kConfig = R"({
  "model_type": "llama", "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5, "initializer_range": 0.08,
  "tie_word_embeddings": true, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2
})";

std::string recipe(const std::string& adapter, double lr, const std::string& train = "steps = 50\nbatch = 24\n",
                   const std::string& optimizer = "") {
  std::ostringstream text;
  text << "job = \"train\"\n[model]\npath = \"base\"\ninit = \"random\"\ntokenizer = \""
       << (source_dir() / "recipes" / "world" / "tokenizer").string() << "\"\n"
       << "[data]\ntrain = \"train.jsonl\"\neval = \"eval.jsonl\"\n"
       << "[train]\nsequence_length = 64\n"
       << train << "[optimizer]\nlr = " << lr << "\n"
       << optimizer << "[run]\nthreads = 1\n"
       << adapter;
  return text.str();
}

std::string copy_task(int documents, uint32_t seed) {
  std::mt19937 random(seed);
  const std::string consonants = "bdfghklmnprstwz", vowels = "aeiu";
  std::string text;
  for (int d = 0; d < documents; ++d) {
    std::string words;
    const auto length = 3 + random() % 7;
    for (size_t i = 0; i < length; ++i)
      words += std::string(i ? " " : "") + consonants[random() % consonants.size()] + vowels[random() % vowels.size()];
    text += Json::object().set("prompt", "copy " + words + " =").set("completion", words).dump() + "\n";
  }
  return text;
}

}  // namespace

Workbench::Workbench() {
  fs::create_directories(folder_ / "base");
  write_file(folder_ / "base/config.json", kConfig);
  write_file(folder_ / "train.jsonl", copy_task(300, 1));
  write_file(folder_ / "eval.jsonl", copy_task(16, 2));
  write_file(folder_ / "full.toml", recipe("", 3e-3));
  write_file(folder_ / "lora.toml", recipe("[adapter]\nmethod = \"lora\"\nrank = 3\ndropout = 0.1\n", 5e-3));
  write_file(folder_ / "mos.toml",
             recipe("[adapter]\nmethod = \"mos\"\nequivalent_rank = 2\nrank = 3\nshards = 2\ndropout = 0.1\n", 5e-3));
  write_file(folder_ / "rps.toml",
             recipe("[sharing]\nmethod = \"rps\"\ncompression = 5\nshared = [\"linears\", \"embedding\"]\n"
                    "min_numel = 600\n",
                    3e-3));
  write_file(folder_ / "spsa.toml",
             recipe("[adapter]\nmethod = \"lora\"\nrank = 3\n[spsa]\nprobes = 3\neps = 1e-2\ndigest_every = 8\n"
                    "[checkpoint]\nevery = 10\nkeep = 9\n",
                    2e-3, "steps = 40\nbatch = 2\nestimator = \"spsa\"\n", "name = \"sgd\"\nmomentum = 0\n"));
}

Command Workbench::trainer(Words arguments) const {
  arguments.insert(arguments.begin(), fs::path(TESSERA_BINARY_DIR) / "trainer");
  // No launcher's variables: a test of the test program itself may run under mpirun.
  return {arguments, {{"OMPI_COMM_WORLD_SIZE", ""}, {"PMIX_RANK", ""}, {"PMI_RANK", ""}, {"SLURM_PROCID", ""}}, path()};
}

Command Workbench::launch(const Words& arguments) const {
  Command command = trainer(arguments);
  command.arguments[0] = TESSERA_MPIEXEC;
  command.environment.insert({{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                              {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                              {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
                              {"OMPI_MCA_hwloc_base_binding_policy", "none"},
                              {"PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"},
                              {"TESSERA_PLUGIN_DIR", TESSERA_BINARY_DIR},
                              {"TMPDIR", path().string()}});  // what a killed mpirun leaves goes with the folder
  return command;
}

Command Workbench::ranks(int count, const Words& arguments) const {
  Words all = trainer(arguments).arguments;
  all.insert(all.begin(), {"-n", std::to_string(count)});
  return launch(all);
}

Command Workbench::ranks_with(const std::vector<Words>& arguments, const Words& folders) const {
  Words all;
  for (size_t rank = 0; rank < arguments.size(); ++rank) {
    if (rank > 0) all.emplace_back(":");
    if (!folders.empty()) all = joined(all, {"-wdir", (*this / folders[rank]).string()});
    const Words alone = ranks(1, arguments[rank]).arguments;  // mpiexec first
    all.insert(all.end(), alone.begin() + 1, alone.end());
  }
  return launch(all);
}

Json Workbench::plan(const Words& words) const {
  return Json::parse(expect_done(trainer(joined(words, {"--check", "--json"}))).out, "plan");
}

void Workbench::replace(const std::string& file, const std::string& text, const std::string& other) const {
  std::string all = read_file(*this / file);
  ASSERT_NE(all.find(text), std::string::npos) << text << " in\n" << all;
  write_file(*this / file, all.replace(all.find(text), text.size(), other));
}

Workbench::Words Workbench::joined(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

int64_t Workbench::lines(const std::string& run) const {
  const fs::path file = *this / run / "metrics.jsonl";
  return fs::exists(file) ? occurrences(read_file(file), "\n") : 0;
}

void Workbench::wait_for_lines(const std::string& run, int64_t count) const {
  ASSERT_TRUE(wait_until([&] { return lines(run) >= count; }, 60)) << run;
}

Ended Workbench::expect_exit(int code, const Command& command, double seconds) const {
  const Ended ended = run(command, seconds);
  std::string line;
  for (const std::string& argument : command.arguments) line += argument + " ";
  EXPECT_FALSE(ended.timed_out) << line << "\n" << ended.out << ended.err;
  EXPECT_EQ(ended.exit_code, code) << line << "\n" << ended.out << ended.err;
  return ended;
}

std::vector<Json> Workbench::metrics(const std::string& run) const {
  std::istringstream text(read_file(*this / run / "metrics.jsonl"));
  std::vector<Json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line, run));
  return lines;
}

std::vector<std::string> Workbench::timeless_metrics(const std::string& run) const {
  static const std::set<std::string> timed = {"tokens_per_second", "machine_share", "step_seconds", "peak_rss_bytes",
                                              "seconds"};
  std::vector<std::string> lines;
  for (const Json& line : metrics(run)) {
    Json kept = Json::object();
    for (const auto& [key, value] : line.members())
      if (!timed.count(key)) kept.set(key, value);
    lines.push_back(kept.dump());
  }
  return lines;
}

std::vector<double> Workbench::losses(const std::string& run, const std::string& split) const {
  std::vector<double> values;
  for (const Json& line : metrics(run))
    if (const Json* of = line.find("split"); of && of->as_string() == split)
      values.push_back(line.at("loss").as_number());
  return values;
}

std::string Workbench::saved_bytes(const std::string& run) const {
  std::string bytes;
  for (const char* file :
       {"adapter/mos.safetensors", "adapter/lora.safetensors", "sharing/rps.safetensors", "model/model.safetensors"})
    if (fs::exists(*this / run / file)) bytes += read_file(*this / run / file);
  EXPECT_FALSE(bytes.empty()) << run;
  return bytes;
}

std::vector<std::string> Workbench::checkpoints(const std::string& run) const {
  std::vector<std::string> names;
  if (!fs::exists(*this / run / "checkpoints")) return names;
  for (const auto& entry : fs::directory_iterator(*this / run / "checkpoints"))
    if (entry.path().filename().string().rfind("step-", 0) == 0) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> Workbench::temporaries(const std::string& run) const {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(*this / run))
    if (entry.path().filename().string().find(".tmp-") != std::string::npos) names.push_back(entry.path().string());
  return names;
}

void Workbench::forget_end(const std::string& run) const {
  const std::string text = read_file(*this / run / "metrics.jsonl");
  write_file(*this / run / "metrics.jsonl", text.substr(0, text.find("{\"event\"")));
}

void Workbench::expect_done_like(const Command& command, const std::string& straight) const {
  expect_done(command);
  expect_same_run("run", straight);
  EXPECT_EQ(temporaries("run"), std::vector<std::string>());
}

void Workbench::expect_same_run(const std::string& run, const std::string& straight) const {
  EXPECT_EQ(saved_bytes(run), saved_bytes(straight));
  EXPECT_EQ(timeless_metrics(run), timeless_metrics(straight));
}

double largest_relative_difference(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size() || a.empty()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]) / std::abs(a[i]);
    largest = difference <= largest ? largest : difference;  // NaN stays
  }
  return largest;
}

int64_t occurrences(const std::string& text, const std::string& part) {
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

bool mpi_is_there() {
  return std::string(TESSERA_MPIEXEC) != "" && fs::exists(fs::path(TESSERA_BINARY_DIR) / "libtessera_mpi.so");
}

}  // namespace tessera::test
