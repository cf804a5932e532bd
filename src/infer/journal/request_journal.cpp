#include "infer/journal/request_journal.h"

#include <sys/stat.h>

#include <algorithm>

#include "core/error.h"
#include "io/files.h"
#include "io/sha256.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kMendHead = "move the file away, and its requests are computed again";
constexpr const char* kMend = "remove the line, and its request is computed again";

/// The number in the name of a rank's file; nothing for another name.
std::optional<int> rank_of(const fs::path& file) {
  const std::string name = file.stem().string();
  const bool is_number = !name.empty() && name.size() < 10 && name.find_first_not_of("0123456789") == std::string::npos;
  if (file.extension() != ".log" || !is_number) return std::nullopt;
  return std::stoi(name);
}

std::string in_words(const std::map<std::string, std::string>& made_on) {
  std::string text;
  for (const auto& [name, value] : made_on) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, value);
  return text;
}

std::string text_at(const FileDescriptor& file, int64_t begin, int64_t bytes) {
  std::string text(static_cast<size_t>(bytes), '\0');
  const size_t got = file.read_at(begin, std::as_writable_bytes(std::span(text)));
  if (got != text.size())
    throw UserError(file.path().string(), "became shorter while it was read", "another process has changed it");
  return text;
}

}  // namespace

RequestJournal::RequestJournal(Reads reads, const fs::path& run_folder, const std::string& samples, JournalHead head,
                               AnswerDifference differs)
    : folder_(run_folder / "journal"),
      samples_(run_folder / samples),
      head_(std::move(head)),
      differs_(std::move(differs)) {
  head_.answers = samples;
  if (reads == Reads::all) read_all();
}

RequestJournal::RequestJournal(const fs::path& run_folder, const std::string& samples, JournalHead head,
                               AnswerDifference differs)
    : RequestJournal(Reads::all, run_folder, samples, std::move(head), std::move(differs)) {
  if (!other_.empty() && end_.empty())
    throw UserError(other_, "the answers that are there are to other requests, or of another model or other options",
                    differences_ + different_answer_ +
                        fmt::format("finish them with the command that began them, set run.dir to another "
                                    "folder, or remove {}: its answers are lost then",
                                    folder_.string()));
  const fs::path ended = run_folder / ended_;
  if (!end_.empty()) look_at_end(ended, end_);
  if (!other_.empty()) make_place(ended);
}

RequestJournal RequestJournal::of_rank(int rank, const fs::path& run_folder, const std::string& samples,
                                       JournalHead head) {
  RequestJournal journal(Reads::own, run_folder, samples, std::move(head), {});
  const fs::path path = journal.file_of(rank);
  if (!fs::exists(path)) return journal;
  journal.read_file({.path = path});
  LogFile& file = journal.files_.front();
  if (file.is_other) file.whole_bytes = 0;  // a batch that has ended and made place
  journal.notices_.clear();                 // rank 0 has told them
  return journal;
}

std::optional<JournalHead> RequestJournal::head_of(const fs::path& run_folder) {
  const fs::path file = run_folder / "journal" / "0.log";
  if (!fs::exists(file)) return std::nullopt;
  std::optional<JournalHead> head;
  int64_t number = 0;
  for_each_whole_line(file, [&](std::string_view line, int64_t) {
    if (++number == 1) head = with_place(file.string(), [&] { return read_head_line(line); });
  });
  return head;
}

std::string RequestJournal::mark(const fs::path& run_folder) {
  struct stat status {};
  try {
    // What is opened is looked up anew, also where a file system is that of another machine.
    const FileDescriptor file = FileDescriptor::open_to_read(run_folder / "journal" / "0.log");
    if (::fstat(file.get(), &status) != 0) return "";
  } catch (const UserError&) {
    return "";
  }
  return fmt::format("{} {} {}.{:09}", status.st_ino, status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

/// The batch before this one has ended, and its file of answers is as it was made.
void RequestJournal::make_place(const fs::path& samples) {
  notices_ = {fmt::format("note: {} holds the answers of another batch, which has ended; this one takes its place",
                          samples.string())};
  for (LogFile& file : files_) file.whole_bytes = 0;
  places_.clear();
  is_complete_ = false;
}

fs::path RequestJournal::file_of(int rank) const { return folder_ / fmt::format("{}.log", rank); }

void RequestJournal::read_all() {
  files_.clear();
  places_.clear();
  end_.clear();
  ended_.clear();
  other_.clear();
  differences_.clear();
  different_answer_.clear();
  std::map<int, fs::path> logs;  // in the order of ranks
  if (fs::is_directory(folder_))
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_))
      if (const auto rank = rank_of(entry.path())) logs[*rank] = entry.path();
  for (const auto& [rank, path] : logs) read_file({.path = path});
}

void RequestJournal::read_file(LogFile log) {
  files_.push_back(std::move(log));
  LogFile& file = files_.back();
  int64_t number = 0;
  bool has_end = false;
  const int64_t whole = for_each_whole_line(file.path, [&](std::string_view line, int64_t begin) {
    ++number;
    const std::string where = fmt::format("{}:{}", file.path.string(), number);
    const auto read = [&] {
      if (has_end) throw UserError("", "the line stands behind the end");
      if (number == 1) {
        file.head = line;
        return read_head(file, line);
      }
      has_end = number == 2 && is_end_line(line);
      if (!has_end) return read_answer(line, begin);
      end_ = read_end_line(line);
      ended_ = file.answers;
    };
    try {
      read();
    } catch (const UserError& error) {
      if (!error.where().empty()) throw;
      throw UserError(where, "the journal is damaged: " + error.message(), number == 1 ? kMendHead : kMend);
    }
    if (!has_end) file.whole_bytes = begin + static_cast<int64_t>(line.size()) + 1;
  });
  if (whole < static_cast<int64_t>(fs::file_size(file.path)))
    notices_.push_back(
        fmt::format("note: {}: the last line was torn when its process ended; its request is computed "
                    "again",
                    file.path.string()));
}

void RequestJournal::read_head(const LogFile& file, std::string_view line) {
  const JournalHead found = read_head_line(line);
  files_.back().answers = found.answers;
  if (found.identity.hex() != head_.identity.hex() || found.answers != head_.answers) {
    files_.back().is_other = true;
    other_ = file.path.string();
    differences_ = identity_differences(found.identity, head_.identity);
    if (found.answers != head_.answers)
      differences_ += fmt::format("generate.output was {}, now {}\n", found.answers, head_.answers);
  }
  if (found.made_on == head_.made_on) return;
  std::string notice = fmt::format(
      "note: these answers were begun on another kind of machine ({}; here {}): bits may differ between requests",
      in_words(found.made_on), in_words(head_.made_on));
  if (std::ranges::find(notices_, notice) == notices_.end()) notices_.push_back(std::move(notice));
}

void RequestJournal::read_answer(std::string_view line, int64_t begin) {
  const AnswerLine found = read_answer_line(line);
  if (files_.back().is_other) {
    if (differs_ && different_answer_.empty()) different_answer_ = differs_(found.number, std::string(found.answer));
    return;
  }
  if (found.number < 0 || found.number >= head_.identity.requests)
    throw UserError("", fmt::format("the number {} is not below {}", found.number, head_.identity.requests));
  const auto bytes = static_cast<int64_t>(found.answer.size());
  const Place place{files_.size() - 1, begin + static_cast<int64_t>(line.size()) - bytes, bytes};
  if (!places_.emplace(found.number, place).second)
    throw UserError("", fmt::format("the answer {} is there already", found.number));
}

void RequestJournal::look_at_end(const fs::path& samples, const std::string& sha256) {
  if (!fs::exists(samples)) {
    notices_.push_back(fmt::format("note: {} is gone and is made again", samples.string()));
    return;
  }
  if (sha256_of_file(samples) != sha256)
    throw UserError(
        samples.string(), "was changed after it was made, and would be overwritten",
        fmt::format("move it away to have it made again, or remove {} to have it overwritten", folder_.string()));
  is_complete_ = true;
}

void RequestJournal::for_each_answer(const std::function<void(int64_t, const std::string&)>& use) const {
  std::vector<std::pair<Place, int64_t>> in_order;
  for (const auto& [number, place] : places_) in_order.emplace_back(place, number);
  std::ranges::sort(in_order, {}, [](const auto& each) { return std::pair(each.first.file, each.first.begin); });
  std::optional<FileDescriptor> file;
  size_t opened = files_.size();
  for (const auto& [place, number] : in_order) {
    if (place.file != opened) file.emplace(FileDescriptor::open_to_read(files_[opened = place.file].path));
    use(number, text_at(*file, place.begin, place.bytes));
  }
}

void RequestJournal::begin(int rank) {
  TS_CHECK(!is_complete_ && !own_, "the journal has ended, or has begun already");
  create_folder(folder_);
  const fs::path path = file_of(rank);
  // First what is of other requests: without its end it would look like answers that somebody still wants.
  if (rank == 0)
    for (const LogFile& log : files_)
      if (log.is_other && log.path != path) fs::remove(log.path);
  const auto found = std::ranges::find(files_, path, &LogFile::path);
  own_file_ = static_cast<size_t>(found - files_.begin());
  if (found == files_.end()) files_.push_back({.path = path});
  LogFile& file = files_[own_file_];
  own_.emplace(FileDescriptor::open_or_create(path));
  own_->truncate(file.whole_bytes);
  if (file.whole_bytes == 0) {
    file.head = head_line(head_);
    const std::string text = file.head + "\n";
    own_->write_at(0, std::as_bytes(std::span(text)));
    file.whole_bytes = std::ssize(text);
  }
  own_->sync();
  sync_folder(folder_);
  sync_folder(folder_.parent_path());
}

void RequestJournal::append(const std::vector<std::pair<int64_t, std::string>>& answers) {
  TS_CHECK(own_, "the journal has not begun");
  if (answers.empty()) return;
  LogFile& file = files_[own_file_];
  std::string text;
  std::vector<std::pair<int64_t, Place>> places;
  for (const auto& [number, answer] : answers) {
    TS_CHECK(number >= 0 && number < head_.identity.requests && !is_finished(number), "answer {} of {}", number,
             head_.identity.requests);
    text += answer_line(number, answer);
    const auto bytes = static_cast<int64_t>(answer.size());
    places.emplace_back(number, Place{own_file_, file.whole_bytes + std::ssize(text) - bytes, bytes});
    text += '\n';
  }
  own_->write_at(file.whole_bytes, std::as_bytes(std::span(text)));
  own_->sync();
  file.whole_bytes += std::ssize(text);
  places_.insert(places.begin(), places.end());
}

std::string RequestJournal::write_samples() const {
  constexpr size_t kPiece = size_t{1} << 20;
  Sha256 hash;
  write_file_atomically(samples_, [&](const fs::path& temporary) {
    std::vector<FileDescriptor> logs;
    for (const LogFile& log : files_) logs.push_back(FileDescriptor::open_to_read(log.path));
    const FileDescriptor samples = FileDescriptor::create(temporary);
    std::string piece;
    const auto write = [&] {
      hash.add(std::as_bytes(std::span(piece)));
      samples.write(std::as_bytes(std::span(piece)));
      piece.clear();
    };
    for (const auto& [number, place] : places_) {
      piece += text_at(logs[place.file], place.begin, place.bytes) + "\n";
      if (piece.size() >= kPiece) write();
    }
    write();
  });
  return hash.hex();
}

void RequestJournal::finish() {
  TS_CHECK(own_ && files_[own_file_].path == file_of(0), "the first rank ends the journal");
  own_.reset();
  read_all();  // what other ranks have appended
  TS_CHECK(finished() == head_.identity.requests, "{} of {} answers are there", finished(), head_.identity.requests);
  const std::string sha256 = write_samples();
  // From here on the file of answers is whole. Killed before the end is written, the next start writes it once more.
  write_text_file(file_of(0), fmt::format("{}\n{}\n", files_.front().head, end_line(sha256)));
  for (const LogFile& log : files_) {
    std::error_code ignored;  // one that stays is read, and changes nothing
    if (log.path != file_of(0)) fs::remove(log.path, ignored);
  }
  sync_folder(folder_);
  places_.clear();
  is_complete_ = true;
}

}  // namespace tessera
