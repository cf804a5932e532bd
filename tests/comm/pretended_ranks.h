#pragma once
// Several ranks without a launcher, for what depends on their number or on what each of them says.

#include <cstdlib>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace tessera::test {

/// A world of as many ranks as there are texts, seen from its first rank and all on one machine. Only
/// all_gather answers.
class PretendedRanks : public Communicator {
 public:
  explicit PretendedRanks(std::vector<std::string> texts) : texts_(std::move(texts)) {}
  int rank() const override { return 0; }
  int size() const override { return static_cast<int>(texts_.size()); }
  int local_rank() const override { return 0; }
  int local_size() const override { return size(); }
  void all_reduce_sum(std::span<float>) override {}
  void all_reduce_sum(std::span<double>) override {}
  void all_reduce_max(std::span<double>) override {}
  void broadcast(std::vector<std::byte>&, int) override {}
  void exchange(std::span<const std::byte>, int, std::span<std::byte>, int) override {}
  void reduce_scatter_sum(std::span<float>, const Parts&) override {}
  void all_gather_parts(std::span<float>, const Parts&) override {}
  Posted start_send(std::span<const std::byte>, int, int) override { return {}; }
  Posted start_receive(std::span<std::byte>, int, int) override { return {}; }
  void progress() override {}
  bool is_done(Posted) const override { return true; }
  void wait(Posted) override {}
  void barrier() override {}
  std::unique_ptr<Communicator> split(int, int) override { return self_communicator(); }
  void abort(int) override { std::abort(); }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte>) override {
    std::vector<std::vector<std::byte>> all;
    for (const std::string& text : texts_) {
      const auto bytes = std::as_bytes(std::span(text));
      all.emplace_back(bytes.begin(), bytes.end());
    }
    return all;
  }

 private:
  std::vector<std::string> texts_;
};

}  // namespace tessera::test
