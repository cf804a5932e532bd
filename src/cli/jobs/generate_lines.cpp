#include "cli/jobs/generate_lines.h"

#include <algorithm>

#include "cli/jobs/generate_config.h"
#include "cli/notices.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "infer/expected_completion.h"
#include "io/files.h"
#include "io/output.h"
#include "io/sha256.h"
#include "kernels/cpu_target.h"
#include "train/run_folder.h"

namespace tessera {
namespace {

std::string hash_of(const TensorView& values) {
  Sha256 hash;
  if (!values.empty()) {
    const OnHost there(values);
    hash.add({static_cast<const std::byte*>(there.view().data), static_cast<size_t>(there.view().bytes())});
  }
  return hash.hex();
}

/// What of an adapter's settings is not in its numbers.
std::string settings_of(const AdapterConfig& a) {
  return fmt::format("{} rank {} of {} shards, {} private, alpha {}, scale {}", a.method,
                     a.rank.value_or(a.equivalent_rank), a.shards, a.private_rank.value_or(0), a.alpha, a.scale);
}

const GenerateConfig& config_of(const JobInputs& in) { return in.config.own.of<GenerateConfig>(); }

}  // namespace

GenerateLines::GenerateLines(const JobInputs& in, std::filesystem::path run, const Tokenizer& tokenizer,
                             const RequestFile& file, const std::vector<int32_t>& eos, bool is_inline)
    : in_(in), run_(std::move(run)), tokenizer_(tokenizer), file_(file), eos_(eos), is_inline_(is_inline) {
  for (size_t line = 0; line < file.lines.size(); ++line) {
    left_.push_back(file.lines[line].count);
    line_of_.insert(line_of_.end(), file.lines[line].count, line);
  }
}

RunIdentity GenerateLines::identity(Model& model, std::map<std::string, std::string> adapters) const {
  const GenerateConfig& g = config_of(in_);
  RunIdentity id{.batch = batch_hash(file_), .requests = std::ssize(file_.lines)};
  id.model = {{"base", model.base_fingerprint()},
              {"values", hash_of(model.pool().trainable().values)},
              {"adapter", settings_of(in_.config.adapter)},
              {"tokenizer", sha256_of_file(in_.config.model.tokenizer_folder() / "tokenizer.json")}};
  id.adapters = std::move(adapters);
  id.options = {{"kv_dtype", g.kv_dtype}, {"deterministic", g.deterministic ? "true" : "false"}};
  return id;
}

void GenerateLines::begin(Model& model, std::map<std::string, std::string> adapters) {
  const RunIdentity id = identity(model, std::move(adapters));
  text_.emplace(file_, tokenizer_, id.hex());
  if (is_inline_) return;
  const JournalHead head{id, {{"backend", in_.config.run.backend}, {"vector", std::string(cpu_target())}}};
  journal_.emplace(run_, config_of(in_).output, head);
  for (const std::string& notice : journal_->notices()) tessera::tell(in_, notice);
  if (journal_->is_complete())
    return tessera::tell(in_, fmt::format("nothing is left to do: all {} requests are answered", file_.lines.size()));
  journal_->begin(0);
  if (journal_->finished() > 0)
    tessera::tell(in_,
                  fmt::format("going on: {} of {} requests are answered", journal_->finished(), file_.lines.size()));
  if (config_of(in_).follow.empty()) return;
  std::string lines;
  journal_->for_each_answer(
      [&](int64_t number, const std::string& line) { lines += with_index(static_cast<size_t>(number), line) + "\n"; });
  write_text_file(run_ / config_of(in_).follow, lines);
}

bool GenerateLines::has(size_t request) const {
  return journal_ && (journal_->is_complete() || journal_->is_finished(static_cast<int64_t>(line_of_[request])));
}

std::optional<ExpectedAnswer> GenerateLines::expected(size_t number, const std::vector<RequestResult>& results) const {
  const AskedLine& line = file_.lines[number];
  // A text without a prompt is no answer to anything: it is data to train on.
  if (line.example.prompt.empty() || line.example.completion.empty() || results[0].outputs.empty()) return {};
  const std::vector<int32_t>& prompt = file_.requests[line.first].prompt;
  const ExpectedCompletion expected = expected_completion(tokenizer_, in_.config.data, line.example, eos_);
  return ExpectedAnswer{tokenizer_.decode_after(prompt, expected.ids, true),
                        is_right(tokenizer_, prompt, expected, results[0].outputs[0])};
}

void GenerateLines::add(size_t request, RequestResult&& result) {
  const size_t number = line_of_[request];
  std::vector<RequestResult>& results = open_[number];
  results.resize(file_.lines[number].count);
  results[request - file_.lines[number].first] = std::move(result);
  if (--left_[number] > 0) return;
  whole_.emplace_back(static_cast<int64_t>(number), text_->line(number, results, expected(number, results)));
  open_.erase(number);
  // Many answers may end in one step, and some are long.
  constexpr int64_t kMostWaiting = int64_t{8} << 20;
  waiting_bytes_ += std::ssize(whole_.back().second);
  if (waiting_bytes_ > kMostWaiting) sync();
}

void GenerateLines::follow(const std::vector<std::pair<int64_t, std::string>>& lines) {
  if (config_of(in_).follow.empty()) return;
  std::string text;
  for (const auto& [number, line] : lines) text += with_index(static_cast<size_t>(number), line) + "\n";
  append_to_file(run_ / config_of(in_).follow, text);
}

void GenerateLines::sync() {
  if (whole_.empty()) return;
  if (journal_)
    journal_->append(whole_);
  else
    inline_.insert(whole_.begin(), whole_.end());
  follow(whole_);
  whole_.clear();
  waiting_bytes_ = 0;
}

void GenerateLines::write() {
  if (journal_ && !journal_->is_complete()) return journal_->finish();
  if (journal_) return;
  std::string lines;
  for (const auto& [number, line] : inline_) lines += line + "\n";
  write_text_file(run_ / config_of(in_).output, lines);
}

void GenerateLines::show_completions() const {
  for (const auto& [number, line] : inline_) {
    const Json sample = Json::parse(line, config_of(in_).output);
    const std::string& prompt = sample.at("prompt").as_string();
    const Json* several = sample.find("completions");
    for (const Json& completion : several ? several->items() : Json::Array{sample.at("completion")})
      print_out("{}{}\n", prompt, completion.as_string());
  }
}

/// How many expected completions are longer than a continuation may be.
int64_t GenerateLines::too_long() const {
  int64_t count = 0;
  for (const AskedLine& line : file_.lines) {
    if (line.example.prompt.empty() || line.example.completion.empty()) continue;
    const ExpectedCompletion expected = expected_completion(tokenizer_, in_.config.data, line.example, eos_);
    count += std::ssize(expected.ids) + expected.ends > config_of(in_).max_new_tokens;
  }
  return count;
}

GenerateLines::Outcome GenerateLines::outcome() const {
  Outcome outcome;
  const std::filesystem::path samples = run_ / config_of(in_).output;
  int64_t number = 0;
  for_each_whole_line(samples, [&](std::string_view text, int64_t) {
    const Json line = Json::parse(text, fmt::format("{}:{}", samples.string(), ++number));
    if (const Json* right = line.find("exact")) ++outcome.asked, outcome.exact += right->as_bool();
    const Json* error = line.find("error");
    if (!error) return;
    if (outcome.failed++ == 0) outcome.first = {number, error->at("message").as_string()};
  });
  return outcome;
}

void GenerateLines::tell(const Outcome& outcome) const {
  if (outcome.asked > 0) {
    if (const int64_t longer = too_long(); longer > 0)
      tessera::tell(in_, fmt::format("note: {} of {} expected completions have more tokens, their end included, than "
                                     "generate.max_new_tokens={}: they cannot come out right",
                                     longer, outcome.asked, config_of(in_).max_new_tokens));
    print_out("completions right: {} of {} ({:.1f} %)\n", outcome.exact, outcome.asked,
              100.0 * static_cast<double>(outcome.exact) / static_cast<double>(outcome.asked));
  }
  if (!in_.quiet) print_out("samples: {}\n", (run_ / config_of(in_).output).string());
  if (outcome.failed == 0) return;
  const auto& [number, message] = outcome.first;
  const std::string why = message + (broken_weight_.empty() ? "" : ": " + broken_weight_);
  const std::string count = fmt::format("{} of {} requests failed; their lines in {} have \"error\"", outcome.failed,
                                        file_.lines.size(), (run_ / config_of(in_).output).string());
  // Where nothing came out, the command has failed.
  if (outcome.failed == std::ssize(file_.lines)) throw UserError(file_.lines.front().where, why, count);
  tessera::tell(in_, fmt::format("note: {}; the first is number {}: {}", count, number, why));
}

int GenerateLines::end() {
  sync();
  write();
  if (is_inline_ && !in_.quiet) show_completions();
  tell(outcome());
  return kDone;
}

}  // namespace tessera
