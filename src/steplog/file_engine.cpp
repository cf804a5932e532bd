#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <map>
#include <thread>

#include "core/error.h"
#include "io/file_lock.h"
#include "io/files.h"
#include "io/numbered_name.h"
#include "steplog/step_log.h"
#include "steplog/transport.h"
#include "steplog/wire.h"

// A kill -9 at any moment leaves at most the torn end of one file: of the log, which the next append mends, or of a
// votes file, which the next vote of that round mends. Locks are the kernel's and end with their process.

namespace tessera {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr uint32_t kRoundsKept = 16;  // far more than any lag that a vote may have
// A lock is held for one write. Who has waited that long gives up a vote, not the run.
constexpr milliseconds kPatience{30'000};
constexpr std::string_view kVotes = ".votes";

/// votes/<seed round>.votes: messages, each with its u16 length in front.
class VoteFolder {
 public:
  explicit VoteFolder(fs::path folder) : folder_(std::move(folder)) { create_folder(folder_); }

  void add(std::span<const std::byte> message) {
    TS_CHECK(!message.empty() && message.size() <= 0xFFFF, "a vote of {} bytes", message.size());
    const uint32_t round = seed_round_of(message);
    const FileDescriptor file = FileDescriptor::open_or_create(folder_ / numbered_name("", round, kVotes));
    // Readers take no lock: they count whole entries only (read_on), and an entry is written behind all others.
    const auto lock = FileLock::take(file, kPatience);
    if (!lock) return;  // a vote may be lost
    ByteWriter entry;
    entry.put(static_cast<uint16_t>(message.size()));
    entry.put(message);
    // A writer that was killed may have left the beginning of an entry. Whatever stood behind it could not be found: it
    // is cut off before the next one is written.
    const int64_t end = end_of_whole_entries(file);
    if (file.size() > end) file.truncate(end);
    file.write_at(end, entry.bytes());
    // Old rounds' files go as new votes come: the folder does not grow with the run.
    remove_before(round);
  }

  /// What was added since the last call, by anyone.
  std::vector<Bytes> take() {
    std::vector<Bytes> messages;
    std::map<std::string, Place> seen;
    for (const auto& [name, status] : list()) {
      Place place = known_place(name, status);
      // The size is looked at first: in most calls nothing is new, and no file is opened.
      if (status.st_size > place.offset) read_on(folder_ / name, place, messages);
      place.size = status.st_size;
      seen.emplace(name, place);
    }
    known_ = std::move(seen);
    return messages;
  }

  bool has_news() const {
    for (const auto& [name, status] : list())
      if (status.st_size > known_place(name, status).size) return true;
    return false;
  }

 private:
  /// How far a file was read. Named by its inode, too: a file of the same name may be another one.
  struct Place {
    ino_t file = 0;
    int64_t offset = 0, size = 0;  // read up to here; as large when it was read
  };

  static uint32_t seed_round_of(std::span<const std::byte> message) {
    constexpr size_t place = 8;  // in a vote: docs/step_log.md
    return message.size() < place + 4 ? 0 : ByteReader(message.subspan(place)).get<uint32_t>();
  }

  static std::optional<uint32_t> round_of_name(const fs::path& name) {
    const auto round = number_in_name(name.string(), "", kVotes);
    if (!round || *round > std::numeric_limits<uint32_t>::max()) return std::nullopt;
    return static_cast<uint32_t>(*round);
  }

  std::vector<std::pair<std::string, struct stat>> list() const {
    std::vector<std::pair<std::string, struct stat>> found;
    // A file may vanish while the folder is listed: another process has removed its round.
    std::error_code gone;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_, gone)) {
      struct stat status;
      if (round_of_name(entry.path().filename()) && ::stat(entry.path().c_str(), &status) == 0)
        found.emplace_back(entry.path().filename().string(), status);
    }
    return found;
  }

  Place known_place(const std::string& name, const struct stat& status) const {
    const auto known = known_.find(name);
    // Replaced or cut: read from the front. What was read already is handed out twice, which take_votes allows.
    if (known == known_.end() || known->second.file != status.st_ino || known->second.offset > status.st_size)
      return Place{status.st_ino, 0, 0};
    return known->second;
  }

  static void read_on(const fs::path& path, Place& place, std::vector<Bytes>& messages) {
    std::error_code gone;
    if (!fs::exists(path, gone)) return;
    const FileDescriptor file = FileDescriptor::open_to_read(path);
    Bytes bytes(static_cast<size_t>(std::max<int64_t>(file.size() - place.offset, 0)));
    bytes.resize(file.read_at(place.offset, bytes));
    for (ByteReader reader(bytes);;) {
      const auto message = whole_entry(reader);
      if (message.empty()) return;
      messages.emplace_back(message.begin(), message.end());
      // Past whole entries alone: one that is still being written is read when it is complete.
      place.offset += 2 + static_cast<int64_t>(message.size());
    }
  }

  /// The next message, or nothing when what is left is no whole entry.
  static std::span<const std::byte> whole_entry(ByteReader& reader) {
    if (reader.rest().size() < 2) return {};
    const uint16_t length = ByteReader(reader.rest()).get<uint16_t>();
    if (length == 0 || reader.rest().size() - 2 < length) return {};
    reader.take(2);
    return reader.take(length);
  }

  static int64_t end_of_whole_entries(const FileDescriptor& file) {
    Bytes bytes(static_cast<size_t>(file.size()));
    bytes.resize(file.read_at(0, bytes));
    ByteReader reader(bytes);
    while (!whole_entry(reader).empty()) {
    }
    return static_cast<int64_t>(bytes.size() - reader.rest().size());
  }

  void remove_before(uint32_t round) const {
    std::error_code ignored;  // another process may do the same
    for (const auto& [name, status] : list())
      if (uint64_t{*round_of_name(name)} + kRoundsKept < round) fs::remove(folder_ / name, ignored);
  }

  fs::path folder_;
  // By file name, of the files that were there when last looked at.
  std::map<std::string, Place> known_;
};

/// What the numbers of a round may be is for those to check who apply it; here only form and chain count.
ChainRules::Limits any_numbers() {
  ChainRules::Limits limits;
  limits.alpha_max = std::numeric_limits<double>::max();
  limits.mul_min = -limits.alpha_max;
  limits.mul_max = limits.alpha_max;
  limits.stale_max = std::numeric_limits<int>::max();
  return limits;
}

class FileEngine : public LogEngine {
 public:
  FileEngine(const fs::path& folder, const std::string& header_json)
      : log_(StepLog::create(folder, header_json, {.access = StepLog::Access::shared, .limits = any_numbers()})),
        votes_(folder / "votes") {}

  void publish_vote(std::span<const std::byte> vote) override {
    votes_.add(vote);
    traffic_.up += static_cast<int64_t>(vote.size());
  }

  std::vector<Bytes> take_votes() override {
    std::vector<Bytes> taken = votes_.take();
    for (const Bytes& vote : taken) traffic_.down += static_cast<int64_t>(vote.size());
    return taken;
  }

  Append append(uint64_t expected, std::span<const std::byte> record) override {
    // The log compares and appends under its lock. A conflict is no error: the caller reads what the other one wrote.
    if (!log_.append_if(expected, record)) return Append::conflict;
    traffic_.up += static_cast<int64_t>(record.size());
    // What this process wrote itself is no news for wait().
    known_size_ = log_.size();
    return Append::won;
  }

  std::vector<Bytes> read(uint64_t from) override {
    // Others append to the same files: their records are read in, and checked against the chain, first.
    log_.refresh();
    known_size_ = log_.size();
    std::vector<Bytes> records;
    if (from >= log_.size()) return records;
    log_.for_each(from, [&](const Record&, std::span<const std::byte> encoded) {
      traffic_.down += static_cast<int64_t>(encoded.size());
      records.emplace_back(encoded.begin(), encoded.end());
      return true;
    });
    return records;
  }

  void wait(milliseconds timeout) override {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + timeout;
    // Nobody rings when a file of a shared folder grows. So it is looked at: often at first, then every 20 ms, which
    // costs little beside a round.
    for (Clock::duration pause = milliseconds{1};; pause = std::min<Clock::duration>(2 * pause, milliseconds{20})) {
      log_.refresh();
      const Clock::duration left = end - Clock::now();
      if (log_.size() > known_size_ || votes_.has_news() || left <= Clock::duration::zero()) return;
      std::this_thread::sleep_for(std::min(pause, left));
    }
  }

 private:
  StepLog log_;
  VoteFolder votes_;
  uint64_t known_size_ = 0;  // of the log, as the caller was told
};

}  // namespace

std::unique_ptr<LogEngine> make_file_engine(const fs::path& folder, const std::string& header_json) {
  return std::make_unique<FileEngine>(folder, header_json);
}

Transport file_transport() {
  return {.name = "file",
          .help = "processes of one host, started one by one, that share a folder",
          .manners = {.who_packs = LogEngine::Manners::Packer::first_there,
                      .total_order = LogEngine::Manners::Order::one_log,
                      .stop_in_votes = false,
                      .catch_up = LogEngine::Manners::CatchUp::from_log,
                      .bytes_of_message = 0},
          .processes = Transport::Processes::share_a_folder,
          .join = [](const Standing& mine) { return fixed_membership(mine.machine, mine.machines); },
          .make = [](const EngineInputs& in) { return make_file_engine(in.folder, in.header_json); }};
}

}  // namespace tessera
