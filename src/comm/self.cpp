#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "comm/communicator.h"
#include "comm/mailbox.h"
#include "core/error.h"

namespace tessera {
namespace {

/// Alone, every sum is the value itself and every message comes home.
class SelfCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 1; }

  void all_reduce_sum(std::span<float> values) override { traffic_.all_reduce.add(values.size_bytes()); }
  void all_reduce_sum(std::span<double> values) override { traffic_.all_reduce.add(values.size_bytes()); }
  void all_reduce_sum_view(const TensorView& values) override { traffic_.all_reduce.add(values.bytes()); }
  void all_reduce_max(std::span<double> values) override { traffic_.all_reduce.add(values.size_bytes()); }

  void reduce_scatter_sum(std::span<float> values, const Parts& parts) override {
    check_parts(parts, 1, static_cast<int64_t>(values.size()));
    traffic_.reduce_scatter.add(static_cast<int64_t>(values.size_bytes()));
  }
  void all_gather_parts(std::span<float> values, const Parts& parts) override {
    check_parts(parts, 1, static_cast<int64_t>(values.size()));
    traffic_.all_gather.add(static_cast<int64_t>(values.size_bytes()));
  }

  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    traffic_.all_gather.add(mine.size());
    return {{mine.begin(), mine.end()}};
  }

  void broadcast(std::vector<std::byte>& bytes, int root) override {
    TS_CHECK(root == 0, "root {} of 1 rank", root);
    traffic_.broadcast.add(bytes.size());
  }

  void exchange(std::span<const std::byte> send, int to, std::span<std::byte> receive, int from) override {
    TS_CHECK(to == 0 && from == 0, "to rank {}, from rank {} of 1 rank", to, from);
    TS_CHECK(send.size() == receive.size(), "sends {} bytes, receives {}", send.size(), receive.size());
    traffic_.exchange.add(send.size());
    std::copy(send.begin(), send.end(), receive.begin());
  }

  void progress() override {
    messages_.progress(0);
    messages_.tell_wrong_size(0);
  }
  bool is_done(Posted posted) const override { return messages_.is_done(posted); }
  void wait(Posted posted) override {
    progress();
    TS_CHECK(messages_.is_done(posted), "the only rank waits for a message whose other side it has not posted");
  }

  void barrier() override {}

  std::unique_ptr<Communicator> split(int color, int) override {
    TS_CHECK(color >= 0, "color {}", color);
    return self_communicator();
  }

  void abort(int exit_code) override {
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }

 protected:
  Posted start_send(std::span<const std::byte> bytes, int, int tag) override {
    return messages_.send({.tag = tag}, bytes);
  }
  Posted start_receive(std::span<std::byte> bytes, int, int tag) override {
    return messages_.receive({.tag = tag}, bytes);
  }

 private:
  Mailbox messages_;
};

}  // namespace

std::unique_ptr<Communicator> self_communicator() { return std::make_unique<SelfCommunicator>(); }

}  // namespace tessera
