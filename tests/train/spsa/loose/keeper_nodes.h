#pragma once
// Machines with logs of their own before one engine's, for the tests of StreamKeeper: they look at set times, and what
// the engine holds is the test's matter.

#include <gmock/gmock.h>

#include "io/sha256.h"
#include "steplog/step_log_samples.h"
#include "support/error_text.h"
#include "support/paths.h"
#include "train/spsa/loose/memory_engine.h"
#include "train/spsa/loose/stream_keeper.h"

namespace tessera::test {

inline const std::string kRunHeader =
    R"({"alpha_max": "46293e5939a08cea", "format": 2, "signers": [], "stale_max": 2, "unit": 9})";
inline constexpr double kQuiet = 4;  // seconds that nobody packs, and who is there tells how much it has

inline RunId run_id() { return {sha256(std::as_bytes(std::span(kRunHeader)))}; }
inline Chain new_chain() { return Chain(run_id(), {.stale_max = 2, .format = 2}); }

/// Rounds of two machines. @param common  records after which `other` goes on in another way
inline std::vector<Bytes> rounds(size_t count, size_t common = 0, uint64_t other = 0) {
  Chain chain = new_chain();
  std::vector<Bytes> all;
  while (all.size() < count) {
    if (other && all.size() == common) chain.dice = Dice(other);
    all.push_back(chain.add(all.empty() ? chain.first_round(2) : chain.round()));
  }
  return all;
}

/// A machine with a log of its own.
struct KeeperNode {
  KeeperNode(MemoryServer& server, const std::string& name, const std::vector<Bytes>& records, int64_t rank = 0)
      : server(server),
        name(name),
        log(StepLog::create(folder / "log", kRunHeader, {.sync_appends = false})),
        engine(server, name) {
    for (const Bytes& record : records) log.append(record);
    ranks[name] = rank;
  }
  /// What the loop does: takes what others said, looks, and reads when it may.
  bool attend(double seconds) {
    for (; heard < server.controls.size(); ++heard) {
      const auto decoded = decode_control_message(server.controls[heard].bytes);
      keeper.take(std::get<HaveRecords>(std::get<ControlMessage>(decoded)), server.controls[heard].node);
    }
    const auto at = std::chrono::duration_cast<RoundClock::Clock::duration>(RoundClock::Seconds(seconds));
    const bool is_open = keeper.attend(StreamKeeper::Time{} + at, RoundClock::Seconds(kQuiet));
    if (is_open)
      for (const Bytes& record : engine.read(log.size())) log.append(record);
    return is_open;
  }
  std::string fault(double seconds = 0) {
    return error_text([&] { attend(seconds); });
  }
  std::vector<Bytes> records() const { return records_of(log); }
  Bytes reseed() const {
    Chain chain(log.run());
    chain.rules = log.chain();
    return encode(chain.next(RecordType::reseed));
  }

  MemoryServer& server;
  std::string name;
  TemporaryFolder folder;
  StepLog log;
  MemoryEngine engine;
  std::map<std::string, int64_t> ranks;
  std::vector<std::string> said;
  size_t heard = 0;
  StreamKeeper keeper{{.engine = engine,
                       .log = log,
                       .node = name,
                       .rank = [this](const std::string& node) { return ranks.at(node); },
                       .reseed = [this] { return reseed(); },
                       .say = [this](const std::string& text) { said.push_back(text); }}};
};

class Keeper : public testing::Test {
 protected:
  RecordType type_of(const Bytes& record) const { return std::get<Record>(decode_record(record)).type; }
  std::vector<HaveRecords> haves() const {
    std::vector<HaveRecords> all;
    for (const auto& message : server_.controls)
      all.push_back(std::get<HaveRecords>(std::get<ControlMessage>(decode_control_message(message.bytes))));
    return all;
  }
  MemoryServer server_;
};

}  // namespace tessera::test
