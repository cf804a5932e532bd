#include <deque>

#include "core/error.h"
#include "steplog/transport.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

// What a rank hands to the all-gather: nothing, one message as it is, or a zero byte and messages with their u32 length
// in front. No vote begins with a zero byte; what does begins a list.

Bytes join(const std::vector<Bytes>& messages) {
  if (messages.empty()) return {};
  // The usual case, one vote a rank and round, then costs no byte beyond the vote.
  if (messages.size() == 1 && !messages[0].empty() && messages[0][0] != std::byte{0}) return messages[0];
  ByteWriter writer;
  writer.put(uint8_t{0});
  for (const Bytes& message : messages) {
    writer.put(static_cast<uint32_t>(message.size()));
    writer.put(std::span(message));
  }
  return writer.take();
}

void split(Bytes joined, std::vector<Bytes>& messages) {
  if (joined.empty()) return;
  if (joined[0] != std::byte{0}) return messages.push_back(std::move(joined));
  ByteReader reader(joined);
  reader.take(1);
  while (!reader.rest().empty()) {
    const auto message = reader.take(reader.get<uint32_t>());
    messages.emplace_back(message.begin(), message.end());
  }
}

constexpr int64_t kLengthBytes = 8;  // an all-gather tells lengths first, in one of its own

class MpiEngine : public LogEngine {
 public:
  MpiEngine(Communicator& world, uint64_t log_size) : world_(world), first_kept_(log_size) {}

  void publish_vote(std::span<const std::byte> vote) override { published_.emplace_back(vote.begin(), vote.end()); }

  std::vector<Bytes> take_votes() override { return std::exchange(arrived_, {}); }

  Append append(uint64_t expected, std::span<const std::byte> record) override {
    // Every rank packs the same record at the same place: a conflict would mean that one of them has gone astray.
    if (expected != first_kept_ + kept_.size()) return Append::conflict;
    kept_.emplace_back(record.begin(), record.end());
    return Append::won;
  }

  /// What was read once is in the rank's own log; only later records are kept here.
  std::vector<Bytes> read(uint64_t from) override {
    TS_CHECK(from >= first_kept_, "record {} is asked for, records before {} were read already", from, first_kept_);
    for (; first_kept_ < from && !kept_.empty(); ++first_kept_) kept_.pop_front();
    // All that was kept is read, and the next record is not here yet.
    if (from > first_kept_) return {};
    return {kept_.begin(), kept_.end()};
  }

  void wait(std::chrono::milliseconds) override {
    // A collective call: all ranks come here equally often, and none waits by the clock. It is where a round meets.
    const Bytes mine = join(std::exchange(published_, {}));
    std::vector<Bytes> all = world_.all_gather(mine);
    traffic_.up += kLengthBytes + static_cast<int64_t>(mine.size());
    // In rank order, so that all ranks have the same list.
    for (int rank = 0; rank < world_.size(); ++rank) {
      if (rank != world_.rank())
        traffic_.down += kLengthBytes + static_cast<int64_t>(all[static_cast<size_t>(rank)].size());
      split(std::move(all[static_cast<size_t>(rank)]), arrived_);
    }
  }

 private:
  Communicator& world_;
  std::vector<Bytes> published_, arrived_;
  uint64_t first_kept_;  // number of kept_.front()
  std::deque<Bytes> kept_;
};

}  // namespace

std::unique_ptr<LogEngine> make_mpi_engine(Communicator& world, uint64_t log_size) {
  return std::make_unique<MpiEngine>(world, log_size);
}

Transport mpi_transport() {
  return {.name = "mpi",
          .help = "ranks of one job",
          .manners = {.who_packs = LogEngine::Manners::Packer::each,
                      .total_order = LogEngine::Manners::Order::copies,
                      .stop_in_votes = true,
                      .catch_up = LogEngine::Manners::CatchUp::from_machines,
                      .bytes_of_message = kLengthBytes},
          .processes = Transport::Processes::ranks_of_a_job,
          .join = [](const Standing& mine) { return fixed_membership(mine.rank, mine.ranks); },
          .make = [](const EngineInputs& in) { return make_mpi_engine(in.world, in.log_size); }};
}

}  // namespace tessera
