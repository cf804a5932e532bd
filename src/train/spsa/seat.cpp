//   machines/.lock         held while a seat is taken: one process at a time looks at the others
//   machines/00003.lock    held as long as machine 3 runs; its text is "machines 8", what that process counts
// Locks are the kernel's: a process that was killed leaves its files behind, and nobody takes them for a running one.

#include "train/spsa/seat.h"

#include <charconv>
#include <thread>

#include "core/error.h"
#include "core/stop.h"
#include "io/files.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr milliseconds kPatience{2'000};  // with a process that is ending
constexpr milliseconds kBrief{30'000};    // with one that is taking its seat
constexpr std::string_view kWork = "waiting for the processes that share the run";
constexpr std::string_view kCounts = "machines ";

fs::path lock_file(const fs::path& folder, uint32_t machine) { return folder / fmt::format("{:05}.lock", machine); }

fs::path made(const fs::path& shared) {
  create_folder(shared);
  create_folder(shared / "machines");
  return shared / "machines";
}

/// The number that a lock file's name holds.
std::optional<uint32_t> machine_of(const fs::path& file) {
  const std::string name = file.filename().string();
  uint32_t machine = 0;
  const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), machine);
  if (failure != std::errc() || lock_file("", machine) != name) return std::nullopt;
  return machine;
}

bool is_held(const fs::path& file) {
  // Taken for a moment at most: whoever can have it shows that nobody holds it.
  return fs::exists(file) && !FileLock::take(FileDescriptor::open_to_change(file), milliseconds(0));
}

/// How many machines the process behind a lock file counts; nothing when it does not say.
std::optional<uint32_t> machines_counted(const fs::path& file) {
  const std::string text = read_text_file(file);
  uint32_t count = 0;
  if (text.rfind(kCounts, 0) != 0) return std::nullopt;
  const char* begin = text.data() + kCounts.size();
  return std::from_chars(begin, text.data() + text.size(), count).ec == std::errc() ? std::optional(count)
                                                                                    : std::nullopt;
}

struct Other {
  uint32_t machine, machines;
};

/// A process that runs now and counts other machines than this one.
std::optional<Other> who_counts_otherwise(const fs::path& folder, uint32_t machine, uint32_t machines) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const auto other = machine_of(entry.path());
    if (!other || *other == machine || !is_held(entry.path())) continue;
    if (const auto counted = machines_counted(entry.path()); counted && *counted != machines)
      return Other{*other, *counted};
  }
  return std::nullopt;
}

void require_equal_count(const fs::path& folder, uint32_t machine, uint32_t machines) {
  // A process that is ending may still hold its seat.
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  while (const auto other = who_counts_otherwise(folder, machine, machines)) {
    if (std::chrono::steady_clock::now() >= give_up)
      throw UserError(
          "spsa.machines",
          fmt::format("machine {} in \"{}\" counts {} machines, this process {}", other->machine,
                      folder.parent_path().string(), other->machines, machines),
          fmt::format("set spsa.machines={}, or stop the others and start all of them with spsa.machines={}",
                      other->machines, machines));
    leave_if_asked(kWork);
    std::this_thread::sleep_for(milliseconds(50));
  }
}

}  // namespace

Seat::Seat(const fs::path& shared, uint32_t machine, uint32_t machines, const std::function<void()>& agree)
    : folder_(made(shared)),
      machine_(machine),
      file_(FileDescriptor::open_or_create(lock_file(folder_, machine))),
      lock_(FileLock::wait(file_, kPatience, kWork)) {
  if (!lock_)
    throw UserError("spsa.machine", fmt::format("machine {} runs already in \"{}\"", machine, shared.string()),
                    machines > 1 ? fmt::format("give each process a number of its own, spsa.machine=0 to {}, or wait "
                                               "until that one has ended",
                                               machines - 1)
                                 : "wait until that one has ended, or set spsa.machines and spsa.machine for both");
  // While its own count is not written, this process says nothing to others: they read no number here.
  file_.truncate(0);  // what an earlier process counted
  const FileDescriptor entrance = FileDescriptor::open_or_create(folder_ / ".lock");
  const auto alone = FileLock::wait(entrance, kBrief, kWork);  // of two that come at once, one sees the other
  require_equal_count(folder_, machine, machines);
  agree();
  // Last of all: from now on, who comes later compares with it.
  const std::string text = fmt::format("{}{}\n", kCounts, machines);
  file_.write_at(0, std::as_bytes(std::span(text)));
}

bool Seat::is_taken(uint32_t machine) const { return machine == machine_ || is_held(lock_file(folder_, machine)); }

}  // namespace tessera
