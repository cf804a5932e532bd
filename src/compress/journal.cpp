#include "compress/journal.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "io/file_descriptor.h"
#include "io/files.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// @throws UserError when it is damaged: also where what was read is not what its hash says
JournalLine parse_line(std::string_view text) {
  const Json json = Json::parse(text, "");
  const Json* beside = json.find("beside");
  JournalLine line{.stage = json.at("stage").as_string(),
                   .reads = stage_reads_of(json.at("reads")),
                   .file = json.at("file").as_string(),
                   .sha256 = json.at("sha256").as_string(),
                   .seconds = json.at("seconds").as_number(),
                   .tokens = json.at("tokens").as_integer(),
                   .beside = beside ? stage_reads_of(*beside) : StageReads()};
  if (json.at("inputs").as_string() != inputs_hash(line.reads))
    throw UserError("", "\"reads\" has not the hash that \"inputs\" says");
  return line;
}

std::string text_of(const JournalLine& line) {
  Json json = Json::object()
                  .set("stage", line.stage)
                  .set("inputs", inputs_hash(line.reads))
                  .set("reads", to_json(line.reads))
                  .set("file", line.file)
                  .set("sha256", line.sha256)
                  .set("seconds", line.seconds)
                  .set("tokens", line.tokens);
  if (!line.beside.empty()) json.set("beside", to_json(line.beside));
  return json.dump();
}

/// The key whose value another has that is not set; empty for all others. The journal holds the value that was used.
std::string default_of(const std::string& key) { return key == "fold.gate_remove" ? "fold.remove" : ""; }

/// Both values of all that was read otherwise, by name.
std::map<std::string, std::string> differences(const StageReads& before, const StageReads& now) {
  const std::map<std::string, std::string> was(before.begin(), before.end()), is(now.begin(), now.end());
  const auto told = [](const auto& values, const std::string& name) {
    const auto found = values.find(name);
    if (found == values.end() || found->second.empty()) return std::string("not set");
    constexpr size_t kHash = 64, kTold = 8;  // digits
    const std::string& value = found->second;
    return value.size() == kHash && value.find_first_not_of("0123456789abcdef") == std::string::npos
               ? value.substr(0, kTold) + ".."
               : value;
  };
  std::map<std::string, std::string> changed;
  for (const auto* values : {&was, &is})
    for (const auto& [name, value] : *values)
      if (told(was, name) != told(is, name))
        changed[name] = fmt::format("was {}, now {}", told(was, name), told(is, name));
  return changed;
}

bool is_as_it_was(const fs::path& file, const std::string& sha256) {
  return fs::is_regular_file(file) && sha256_of_file(file) == sha256;
}

}  // namespace

std::string inputs_hash(const StageReads& reads) {
  std::string text;
  for (const auto& [name, value] : reads) text += name + "=" + value + "\n";
  return sha256_hex(text);
}

Json to_json(const StageReads& reads) {
  Json json = Json::object();
  for (const auto& [name, value] : reads) json.set(name, value);
  return json;
}

StageReads stage_reads_of(const Json& json) {
  StageReads reads;
  for (const auto& [name, value] : json.members()) reads.emplace_back(name, value.as_string());
  return reads;
}

const std::string* value_of(const StageReads& reads, std::string_view name) {
  const auto found = std::ranges::find(reads, name, [](const auto& read) { return std::string_view(read.first); });
  return found == reads.end() ? nullptr : &found->second;
}

bool are_same_reads(const StageReads& before, const StageReads& now) { return differences(before, now).empty(); }

std::string differences_in_words(const StageReads& before, const StageReads& now, const ReadFiles& files) {
  const auto changed = differences(before, now);
  std::string text;
  for (const auto& [name, values] : changed) {
    const std::string standing_for = default_of(name);
    const auto other = changed.find(standing_for);
    if (other != changed.end() && other->second == values) continue;  // it is told already
    const auto of_file = files.find(name);
    text += fmt::format("{}{} {}\n", name,
                        !standing_for.empty()    ? fmt::format(" (by default {})", standing_for)
                        : of_file != files.end() ? fmt::format(" ({})", of_file->second)
                                                 : "",
                        values);
  }
  return text;
}

void require_same_reads(const fs::path& file, std::string_view stage, const StageReads& before, const StageReads& now,
                        const ReadFiles& files) {
  const std::string text = differences_in_words(before, now, files);
  if (text.empty()) return;
  throw UserError(file.string(), fmt::format("stage {} cannot go on: the recipe differs", stage),
                  text +
                      "undo the change, or set run.dir to another folder: with fold.reuse it takes over the stages "
                      "that read none of this");
}

Journal::Journal(fs::path folder) : folder_(std::move(folder)) {
  if (!fs::exists(file())) return;
  const std::string text = read_text_file(file());
  int64_t number = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    ++number;
    whole_bytes_ = static_cast<int64_t>(end) + 1;
    if (end == begin) continue;
    try {
      lines_.push_back(parse_line(std::string_view(text).substr(begin, end - begin)));
    } catch (const UserError& error) {
      notices_.push_back(
          fmt::format("{}:{}: this line of the journal is damaged and does not count: {}; its stage is run again where "
                      "no other line tells of it. Remove the line to be told no more",
                      file().string(), number, error.message()));
    }
  }
}

bool Journal::knows(std::string_view name, const std::string& sha256) const {
  return std::ranges::any_of(lines_, [&](const JournalLine& line) {
    return std::ranges::any_of(line.beside,
                               [&](const auto& file) { return file.first == name && file.second == sha256; });
  });
}

const JournalLine* Journal::done(std::string_view stage) const {
  for (auto line = lines_.rbegin(); line != lines_.rend(); ++line) {
    if (line->stage != stage) continue;
    bool is_whole = is_as_it_was(folder_ / line->file, line->sha256);
    for (const auto& [name, sha256] : line->beside) is_whole = is_whole && is_as_it_was(folder_ / name, sha256);
    return is_whole ? &*line : nullptr;
  }
  return nullptr;
}

bool Journal::is_altered(std::string_view stage) const {
  const auto last = std::ranges::find(lines_.rbegin(), lines_.rend(), stage, &JournalLine::stage);
  return last != lines_.rend() && fs::exists(folder_ / last->file) && !is_as_it_was(folder_ / last->file, last->sha256);
}

void Journal::mend() {
  if (!fs::exists(file())) return;
  const FileDescriptor journal = FileDescriptor::open_to_change(file());
  if (journal.size() == whole_bytes_) return;
  journal.truncate(whole_bytes_);
  journal.sync();
}

void Journal::append(const JournalLine& line) {
  const bool is_new = !fs::exists(file());
  const std::string text = text_of(line) + "\n";
  const FileDescriptor journal = FileDescriptor::open_or_create(file());
  journal.write_at(whole_bytes_, std::as_bytes(std::span(text)));
  journal.sync();
  if (is_new) sync_folder(folder_);
  whole_bytes_ += static_cast<int64_t>(text.size());
  lines_.push_back(line);
}

}  // namespace tessera
