#include "compress/run_stages.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include "comm/stop_together.h"
#include "compress/folded_folder.h"
#include "core/error.h"
#include "io/files.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

using How = StageReport::How;

const char* text_of(How how) { return how == How::run ? "done" : how == How::reused ? "reused" : "done before"; }

void add_keys(const Stage& stage, const std::map<std::string, std::string>& keys, StageReads& reads) {
  for (const std::string& key : stage.keys) {
    const auto found = keys.find(key);
    TS_CHECK(found != keys.end(), "stage {} reads \"{}\", which is no key", stage.name, key);
    reads.emplace_back(found->first, found->second);
  }
}

/// A plan of the user's stands for the stages that it replaces: by what it holds, wherever it lies.
void add_plan(const Stage& stage, const FoldConfig& fold, StageReads& reads) {
  if (!fold.plan.empty() && !stage.in_plan) reads.emplace_back("fold.plan", sha256_of_file(fold.plan));
}

/// Whose contents are compared by a hash.
ReadFiles files_of(const std::map<std::string, std::string>& keys) {
  ReadFiles files;
  for (const auto& [name, key] : {std::pair{"base", "model.path"}, std::pair{"data", "data.train"},
                                  std::pair{"eval", "data.eval"}, std::pair{"fold.plan", "fold.plan"}})
    if (const auto found = keys.find(key); found != keys.end() && found->second.size() > 2) files[name] = found->second;
  return files;
}

/// All that a stage reads. Its inputs are done.
StageReads reads_of(const Stage& stage, const StageInputs& in, const Journal& journal) {
  StageReads reads = reads_of_recipe(stage, in);
  for (const std::string_view input : stage.inputs) {
    const Stage& earlier = find_stage(input);
    const bool is_replaced = !in.fold.plan.empty() && earlier.in_plan;
    const bool is_run = !is_replaced && (!earlier.applies || earlier.applies(in.fold));
    if (const JournalLine* line = is_run ? journal.done(input) : nullptr) reads.emplace_back(line->file, line->sha256);
  }
  return reads;
}

bool is_file(const std::string& name) { return name.ends_with(".json") || name.ends_with(".safetensors"); }

StageReads without_files(StageReads reads) {
  std::erase_if(reads, [](const auto& read) { return is_file(read.first); });
  return reads;
}

std::optional<int64_t> number_of(const StageReads& reads, std::string_view name) {
  const std::string* text = value_of(reads, name);
  int64_t number = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), number).ec != std::errc()) return {};
  return number;
}

/// Whether it leaves a folded model, which comes to lie in RUN/sharing.
bool keeps_model(const Stage& stage) {
  return std::ranges::any_of(stage.beside, [](std::string_view name) { return name.ends_with("/sharing.json"); });
}

/// @throws UserError since a stage that is done is asked for more, and its state is gone
[[noreturn]] void refuse_lost_state(const Stage& stage, const fs::path& journal, const StageReads& before,
                                    const StageReads& now) {
  throw UserError(
      journal.string(),
      fmt::format("stage {} ended with {} = {}, {} are asked for, and it has nothing to go on from", stage.name,
                  stage.longer, *number_of(before, stage.longer), *number_of(now, stage.longer)),
      "put back a copy of its checkpoints, or set run.dir to another folder: with fold.reuse it takes over "
      "the stages in front");
}

/// What each stage that is asked for has read of the recipe, where it is finished or half done, is what it holds now.
/// Files of earlier stages are compared when their turn comes, since one that is gone is made again. A model that a
/// stage would put in the place of another job's is refused here, too.
/// @param now  what a stage reads of the recipe; without base and data where these are not known yet
void require_recipe_of_stages(const Journal& journal, const FoldConfig& fold, const ReadFiles& files,
                              const std::function<StageReads(const Stage&)>& now) {
  const auto compare = [&](const Stage& stage, const fs::path& file, StageReads before, const StageReads& reads,
                           bool is_whole) {
    std::erase_if(before, [&](const auto& read) {
      const bool is_content = read.first == "base" || read.first == "data" || read.first == "eval";
      return is_file(read.first) || (is_content && !value_of(reads, read.first));
    });
    require_same_recipe(stage, file, std::move(before), reads, is_whole, files);
  };
  for (const Stage* stage : asked_stages(fold)) {
    const StageReads reads = now(*stage);
    const JournalLine* line = journal.done(stage->name);
    if (line) compare(*stage, journal.file(), line->reads, reads, true);
    if (line && !is_longer(*stage, line->reads, reads)) continue;
    if (keeps_model(*stage)) require_untrained(journal.file().parent_path());
    const auto half = stage->half_done ? stage->half_done(journal.file().parent_path()) : std::nullopt;
    if (half) compare(*stage, half->file, half->reads, reads, is_whole(*stage, *half, line));
    if (line && !half) refuse_lost_state(*stage, journal.file(), line->reads, reads);
  }
}

/// The line of another run's stage that read the same; null: there is none.
const JournalLine* reusable(const Journal& other, const Stage& stage, const StageReads& reads) {
  const JournalLine* line = other.done(stage.name);
  return line && inputs_hash(line->reads) == inputs_hash(reads) ? line : nullptr;
}

/// Rank 0's part of the stages.
class Root {
 public:
  explicit Root(const StageInputs& in) : in_(in), journal_(in.folder) {
    require_recipe_of_stages(journal_, in.fold, files_of(in.keys),
                             [&](const Stage& stage) { return reads_of_recipe(stage, in); });
    create_folder(in.folder);
    for (const char* part : {"", "checkpoints", "shared", "cured"}) remove_temporaries(in.folder / part);
    journal_.mend();
    for (const std::string& notice : journal_.notices()) in.say(notice);
    recover_folded(in.folder, journal_);
    if (in.begin) in.begin();
    if (in.fold.reuse.empty()) return;
    const fs::path folder = in.fold.reuse / "compress";
    if (!fs::exists(folder / "journal.jsonl"))
      throw UserError("fold.reuse", fmt::format("\"{}\" holds no run of job = \"compress\"", in.fold.reuse.string()),
                      "name the folder of a run, which has compress/journal.jsonl");
    other_.emplace(folder);
    for (const std::string& notice : other_->notices()) in.say(notice);
  }

  /// Whether the stage is done, or was taken over. One that is done is run again where a file that it reads was made
  /// anew since, or where more is asked for: what else it reads was compared before the first stage.
  How find(const Stage& stage) {
    reads_ = reads_of(stage, in_, journal_);
    const JournalLine* done = journal_.done(stage.name);
    if (done && are_same_reads(done->reads, reads_)) return How::done_before;
    if (!done) keep_altered(stage);
    const JournalLine* line = other_ && stage.is_reusable ? reusable(*other_, stage, reads_) : nullptr;
    if (!line) {
      say_why_not_reused(stage);
      return How::run;
    }
    const fs::path there = in_.fold.reuse / "compress";
    for (const std::string_view name : stage.beside) write_text_file(in_.folder / name, read_text_file(there / name));
    finish(stage, read_text_file(there / line->file), line->seconds, line->tokens);
    return How::reused;
  }

  void finish(const Stage& stage, const std::string& text, double seconds, int64_t tokens) {
    write_text_file(in_.folder / stage.file, text);
    JournalLine line{.stage = std::string(stage.name),
                     .reads = reads_,
                     .file = std::string(stage.file),
                     .sha256 = sha256_hex(text),
                     .seconds = seconds,
                     .tokens = tokens};
    for (const std::string_view name : stage.beside) line.beside.emplace_back(name, sha256_of_file(in_.folder / name));
    journal_.append(line);
  }

  StageReport report(const Stage& stage, How how) const {
    const JournalLine& line = *journal_.done(stage.name);
    return {line.stage, line.file, line.seconds, line.tokens, how};
  }

 private:
  /// The stage's file is not what the stage wrote: whoever altered it has it still when the stage writes it anew.
  void keep_altered(const Stage& stage) const {
    if (!journal_.is_altered(stage.name)) return;
    const fs::path file = in_.folder / stage.file, kept = file.string() + ".altered";
    fs::rename(file, kept);
    in_.say(
        fmt::format("{} is not as stage {} left it: the stage is run again, and what was there is {} now. A plan of "
                    "your own is given by fold.plan = FILE",
                    file.string(), stage.name, kept.filename().string()));
  }

  /// Of a stage that the other run could have spared this one.
  void say_why_not_reused(const Stage& stage) const {
    if (!other_ || !stage.is_reusable) return;
    const JournalLine* line = other_->done(stage.name);
    std::string why = line ? differences_in_words(without_files(line->reads), without_files(reads_), files_of(in_.keys))
                           : "it is not done there";
    if (why.empty()) why = "files of earlier stages are others";
    while (why.ends_with('\n')) why.pop_back();
    for (size_t at = 0; (at = why.find('\n', at)) != std::string::npos;) why.replace(at, 1, "; ");
    in_.say(fmt::format("stage {} is not taken over from {}: {}", stage.name, in_.fold.reuse.string(), why));
  }

  const StageInputs& in_;
  Journal journal_;
  std::optional<Journal> other_;
  StageReads reads_;  // of the stage that was found last
};

}  // namespace

bool is_whole(const Stage& stage, const HalfDone& half, const JournalLine* done) {
  const std::string *asked = value_of(half.reads, stage.longer),
                    *was = done ? value_of(done->reads, stage.longer) : nullptr;
  return half.is_whole || (asked && was && *asked == *was);
}

bool is_longer(const Stage& stage, const StageReads& before, const StageReads& now) {
  if (stage.longer.empty()) return false;
  const auto was = number_of(before, stage.longer), is = number_of(now, stage.longer);
  return was && is && *is > *was;
}

void require_same_recipe(const Stage& stage, const fs::path& file, StageReads before, StageReads now, bool is_whole,
                         const ReadFiles& files) {
  const bool is_more = is_whole && is_longer(stage, before, now);
  const auto is_left_out = [&](const auto& read) { return is_more && read.first == stage.longer; };
  const auto is_new_key = [&](const auto& read) {
    return !value_of(before, read.first) && std::ranges::find(stage.keys, read.first) != stage.keys.end();
  };
  std::erase_if(now, [&](const auto& read) { return is_left_out(read) || is_new_key(read); });
  std::erase_if(before, is_left_out);
  require_same_reads(file, stage.name, before, now, files);
}

StageReads reads_of_recipe(const Stage& stage, const StageInputs& in) {
  StageReads reads = {{"base", in.model.base_fingerprint()}, {"data", in.data.hash()}};
  if (stage.reads_eval) reads.emplace_back("eval", in.eval ? in.eval->hash() : "");
  add_keys(stage, in.keys, reads);
  add_plan(stage, in.fold, reads);
  return reads;
}

void look_at_journal(const fs::path& folder, const FoldConfig& fold, const std::map<std::string, std::string>& keys) {
  require_recipe_of_stages(Journal(folder), fold, files_of(keys), [&](const Stage& stage) {
    StageReads now;
    add_keys(stage, keys, now);
    add_plan(stage, fold, now);
    return now;
  });
}

std::vector<std::string> tell_stages_done(const fs::path& folder, const FoldConfig& fold) {
  const Journal journal(folder);
  std::vector<std::string> lines = journal.notices();
  std::string done, begun;
  for (const Stage* stage : asked_stages(fold)) {
    if (journal.done(stage->name)) {
      done += fmt::format("{}{}", done.empty() ? "" : ", ", stage->name);
    } else if (const auto half = stage->half_done ? stage->half_done(folder) : std::nullopt) {
      begun += fmt::format("; {} goes on from {}", stage->name, half->file.string());
    }
  }
  if (!done.empty() || !begun.empty())
    lines.push_back(fmt::format("done already: {}{}", done.empty() ? "nothing" : done, begun));
  return lines;
}

std::vector<StageReport> run_stages(const StageInputs& in) {
  std::optional<Root> root;
  if (in.is_root()) root.emplace(in);
  std::vector<StageReport> reports;
  for (const Stage* stage : asked_stages(in.fold)) {
    leave_together(in.world, in.stop_requested(), fmt::format("compressing, before stage {}", stage->name));
    const How mine = root ? root->find(*stage) : How::run;
    const bool is_run = broadcast_text(in.world, text_of(mine)) == text_of(How::run);
    if (is_run) {
      if (stage->takes_long) in.say(fmt::format("stage {} begins", stage->name));
      const auto begin = std::chrono::steady_clock::now();
      const StageOutcome outcome = stage->run(in);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (root)
        root->finish(*stage, outcome.text.empty() ? outcome.file.dump(1) + "\n" : outcome.text, seconds,
                     outcome.tokens);
    }
    if (!root) continue;
    reports.push_back(root->report(*stage, mine));
    in.say(fmt::format("stage {}: {}", stage->name, text_of(mine)));
  }
  if (root) restore_folded(in.folder);
  return reports;
}

}  // namespace tessera
