#include "cli/jobs/generate_lines.h"

#include <algorithm>

#include "cli/jobs/generate_config.h"
#include "cli/notices.h"
#include "comm/fault_together.h"
#include "comm/from_root.h"
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

}  // namespace

GenerateLines::GenerateLines(const JobInputs& in, std::filesystem::path run, const Tokenizer& tokenizer,
                             const RequestFile& file, const std::vector<int32_t>& eos, bool is_inline)
    : in_(in), run_(std::move(run)), tokenizer_(tokenizer), file_(file), eos_(eos), is_inline_(is_inline) {
  for (size_t line = 0; line < file.lines.size(); ++line) {
    left_.push_back(file.lines[line].count);
    line_of_.insert(line_of_.end(), file.lines[line].count, line);
  }
}

/// @param unknown  has what a model without values does not tell
RunIdentity GenerateLines::identity(Model& model, const std::map<std::string, std::string>& adapters,
                                    const RunIdentity& unknown) const {
  const GenerateConfig& g = config_of(in_);
  RunIdentity id{.batch = batch_hash(file_), .requests = std::ssize(file_.lines)};
  id.model = unknown.model;
  const bool has_values = model.pool().memory() == Memory::held || model.pool().trainable_count() == 0;
  if (model.knows_base()) id.model["base"] = model.base_fingerprint();
  if (has_values) id.model["values"] = hash_of(model.pool().trainable().values);
  id.model["adapter"] = settings_of(in_.config.adapter);
  id.model["tokenizer"] = sha256_of_file(in_.config.model.tokenizer_folder() / "tokenizer.json");
  id.adapters = adapters;
  id.options = {{"kv_dtype", g.kv_dtype}, {"deterministic", g.deterministic ? "true" : "false"}};
  return id;
}

/// The identity is rank 0's, since a large base is hashed once; what ranks must have in common is compared before.
JournalHead GenerateLines::agreed_head(Model& model, const std::map<std::string, std::string>& adapters) const {
  JournalHead head =
      read_head_line(from_root(in_.world, [&] { return head_line({.identity = identity(model, adapters, {})}); }));
  head.made_on = {{"backend", in_.config.run.backend}, {"vector", std::string(cpu_target())}};
  return head;
}

void GenerateLines::begin(Model& model, const std::map<std::string, std::string>& adapters) {
  head_ = agreed_head(model, adapters);
  text_.emplace(file_, tokenizer_, head_.identity.hex());
  is_answered_.assign(file_.lines.size(), false);
  if (!is_inline_) open_journal();
}

RequestJournal GenerateLines::read_journal() const {
  return {run_, config_of(in_).output, head_,
          [this](int64_t number, const std::string& answer) { return difference(number, answer); }};
}

int64_t GenerateLines::look(Model& model, const std::map<std::string, std::string>& adapters) {
  if (is_inline_) return 0;
  const std::optional<JournalHead> found = RequestJournal::head_of(run_);
  if (!found) return 0;
  head_ = {.identity = identity(model, adapters, found->identity), .made_on = found->made_on};
  const RequestJournal journal = read_journal();
  return journal.is_complete() ? std::ssize(file_.lines) : journal.finished();
}

/// Of an answer to the request that had this number when the journal was begun.
std::string GenerateLines::difference(int64_t number, const std::string& answer) const {
  if (number >= std::ssize(file_.lines)) return "";
  const AskedLine& line = file_.lines[static_cast<size_t>(number)];
  const Json json = Json::parse(answer, "the journal");
  const auto changed = [&](const char* what, const std::string& before, const std::string& now) {
    return before == now ? "" : fmt::format("{}: its {} was {}, now {}\n", line.where, what, before, now);
  };
  std::string text;
  if (const Json* id = json.find("custom_id"); id && text.empty())
    text = changed("custom_id", id->dump(), Json(line.custom_id).dump());
  if (const Json* prompt = json.find("prompt"); prompt && text.empty())
    text = changed("prompt", prompt->dump(), Json(line.example.prompt).dump());
  if (const Json* usage = json.find("usage"); usage && text.empty())
    text = changed("number of prompt tokens", usage->at("prompt_tokens").dump(),
                   std::to_string(file_.requests[line.first].prompt.size()));
  return text;
}

/// On rank 0. @return what the other ranks must know: a mark of its file, and which lines are answered
std::string GenerateLines::open_first() {
  journal_.emplace(read_journal());
  for (const std::string& notice : journal_->notices()) tessera::tell(in_, notice);
  Json answered = Json::array();
  if (journal_->is_complete()) {
    tessera::tell(in_, fmt::format("nothing is left to do: all {} requests are answered", file_.lines.size()));
    return Json::object().set("is_complete", true).set("mark", "").set("answered", answered).dump();
  }
  journal_->begin(0);
  if (journal_->finished() > 0)
    tessera::tell(in_,
                  fmt::format("going on: {} of {} requests are answered", journal_->finished(), file_.lines.size()));
  std::string lines;
  journal_->for_each_answer([&](int64_t number, const std::string& line) {
    answered.push_back(number);
    if (follows()) lines += with_index(static_cast<size_t>(number), line) + "\n";
  });
  if (follows()) write_text_file(run_ / config_of(in_).follow, lines);
  return Json::object()
      .set("is_complete", false)
      .set("mark", RequestJournal::mark(run_))
      .set("answered", answered)
      .dump();
}

void GenerateLines::open_journal() {
  const Json first = Json::parse(from_root(in_.world, [&] { return open_first(); }), "rank 0");
  if (first.at("is_complete").as_bool()) return is_answered_.assign(file_.lines.size(), true);
  for (const Json& number : first.at("answered").items()) is_answered_[static_cast<size_t>(number.as_integer())] = true;
  if (in_.world.size() == 1) return;
  throw_together(in_.world, user_fault_of([&] {
                   if (is_first()) return;
                   if (RequestJournal::mark(run_) != first.at("mark").as_string())
                     throw UserError(
                         run_.string(),
                         fmt::format("rank {} does not see the folder that rank 0 writes into", in_.world.rank()),
                         "set run.dir to a folder that all machines of the job share, or start ranks of one machine");
                   journal_.emplace(RequestJournal::of_rank(in_.world.rank(), run_, config_of(in_).output, head_));
                   journal_->begin(in_.world.rank());
                 }));
}

std::vector<size_t> GenerateLines::left() const {
  std::vector<size_t> numbers;
  for (size_t i = 0; i < line_of_.size(); ++i)
    if (!is_answered_[line_of_[i]]) numbers.push_back(i);
  return numbers;
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

bool GenerateLines::follows() const { return !config_of(in_).follow.empty(); }

void GenerateLines::keep(const NumberedLines& lines) {
  if (is_inline_) inline_.insert(lines.begin(), lines.end());
  if (!follows()) return;
  std::string text;
  for (const auto& [number, line] : lines) text += with_index(static_cast<size_t>(number), line) + "\n";
  append_to_file(run_ / config_of(in_).follow, text);
}

void GenerateLines::sync() {
  if (whole_.empty()) return;
  if (journal_) journal_->append(whole_);
  if (is_first())
    keep(whole_);
  else if (is_inline_ || follows())
    std::move(whole_.begin(), whole_.end(), std::back_inserter(news_));
  whole_.clear();
  waiting_bytes_ = 0;
}

std::string GenerateLines::state() const {
  if (!journal_) return "";
  const RequestJournal all = read_journal();  // with what other ranks have appended
  return fmt::format("{} of {} requests are answered", all.finished(), file_.lines.size());
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
  if (!is_first()) return kDone;
  write();
  if (is_inline_ && !in_.quiet) show_completions();
  tell(outcome());
  return kDone;
}

}  // namespace tessera
