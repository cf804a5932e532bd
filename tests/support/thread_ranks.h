#pragma once
// Ranks that are threads of the test program: several of them without a launcher.

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "comm/mailbox.h"
#include "core/error.h"

namespace tessera::test {

/// What the ranks of one communicator share. A rank that waits is woken, by an exception, when another one has failed.
class Team {
 public:
  using Bytes = std::vector<std::byte>;

  explicit Team(int size) : slots_(static_cast<size_t>(size)) {}
  int size() const { return static_cast<int>(slots_.size()); }

  /// What every rank brought. Every other collective is made of it.
  std::vector<Bytes> all_gather(int rank, std::span<const std::byte> mine) {
    {
      const std::lock_guard lock(mutex_);
      slots_[static_cast<size_t>(rank)].assign(mine.begin(), mine.end());
    }
    meet();
    const std::vector<Bytes> all = slots_;  // nobody writes before all have met again
    meet();
    return all;
  }

  /// The team of this color that is formed after the last meeting: the first of its ranks to come makes it.
  std::shared_ptr<Team> part(int color, int size) {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Team>& team = parts_[{meetings_, color}];
    if (!team) team = std::make_shared<Team>(size);
    return team;
  }

  /// Calls `act` with the messages of all ranks.
  template <class Act> auto with_messages(Act act) {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
    return act(messages_);
  }
  void wait(int rank, Posted posted) {
    wait_until([&] {
      if (messages_.progress(rank)) changed_.notify_all();
      messages_.tell_wrong_size(rank);
      return messages_.is_done(posted);
    });
  }

  void fail() {
    const std::lock_guard lock(mutex_);
    failed_ = true;
    for (const auto& [made, part] : parts_) part->fail();
    changed_.notify_all();
  }

 private:
  void meet() {
    uint64_t mine = 0;
    {
      const std::lock_guard lock(mutex_);
      mine = meetings_;
      if (++arrived_ == size()) arrived_ = 0, ++meetings_, changed_.notify_all();
    }
    wait_until([&] { return meetings_ != mine; });
  }

  template <class Condition> void wait_until(Condition condition) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return failed_ || condition(); });
    TS_CHECK(condition(), "another rank has failed");
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Bytes> slots_;
  std::map<std::pair<uint64_t, int>, std::shared_ptr<Team>> parts_;  // by meeting and color
  Mailbox messages_;
  uint64_t meetings_ = 0;
  int arrived_ = 0;
  bool failed_ = false;
};

class ThreadRank : public Communicator {
 public:
  ThreadRank(std::shared_ptr<Team> team, int rank) : team_(std::move(team)), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return team_->size(); }
  int local_rank() const override { return rank_; }
  int local_size() const override { return size(); }

  void all_reduce_sum(std::span<float> values) override { all_reduce(values, std::plus<double>()); }
  void all_reduce_sum(std::span<double> values) override { all_reduce(values, std::plus<double>()); }
  void all_reduce_max(std::span<double> values) override {
    all_reduce(values, [](double a, double b) { return a >= b || std::isnan(a) ? a : b; });
  }
  void reduce_scatter_sum(std::span<float> values, const Parts& parts) override {
    check_parts(parts, size(), static_cast<int64_t>(values.size()));
    traffic_.reduce_scatter.add(static_cast<int64_t>(values.size_bytes()));
    std::vector<float> sums(values.begin(), values.end());
    combine(std::span(sums), std::plus<double>());
    std::copy(sums.begin() + parts.begin(rank_), sums.begin() + parts.end(rank_), values.begin() + parts.begin(rank_));
  }
  void all_gather_parts(std::span<float> values, const Parts& parts) override {
    check_parts(parts, size(), static_cast<int64_t>(values.size()));
    traffic_.all_gather.add(parts.size(rank_) * static_cast<int64_t>(sizeof(float)));
    const auto part = [&](int r) { return values.subspan(parts.begin(r), parts.size(r)); };
    const auto all = team_->all_gather(rank_, std::as_bytes(part(rank_)));
    for (int r = 0; r < size(); ++r) {
      const auto bytes = std::as_writable_bytes(part(r));
      std::copy_n(all[static_cast<size_t>(r)].begin(), bytes.size(), bytes.begin());
    }
  }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    traffic_.all_gather.add(static_cast<int64_t>(mine.size()));
    return team_->all_gather(rank_, mine);
  }
  void broadcast(std::vector<std::byte>& bytes, int root) override {
    TS_CHECK(root >= 0 && root < size(), "root {} of {} ranks", root, size());
    traffic_.broadcast.add(rank_ == root ? static_cast<int64_t>(bytes.size()) : 0);
    bytes = team_->all_gather(rank_, bytes)[static_cast<size_t>(root)];
  }
  void exchange(std::span<const std::byte> send, int to, std::span<std::byte> receive, int from) override {
    TS_CHECK(std::min(to, from) >= 0 && std::max(to, from) < size(), "to rank {}, from rank {} of {}", to, from,
             size());
    TS_CHECK(send.size() == receive.size(), "sends {} bytes, receives {}", send.size(), receive.size());
    traffic_.exchange.add(static_cast<int64_t>(send.size()));
    const Posted received = start_receive(receive, from, kPostedTags), sent = start_send(send, to, kPostedTags);
    team_->wait(rank_, received);
    team_->wait(rank_, sent);
  }
  void progress() override {
    team_->with_messages([&](Mailbox& messages) {
      messages.progress(rank_);
      messages.tell_wrong_size(rank_);
    });
  }
  bool is_done(Posted posted) const override {
    return team_->with_messages([&](const Mailbox& messages) { return messages.is_done(posted); });
  }
  void wait(Posted posted) override { team_->wait(rank_, posted); }
  void barrier() override { team_->all_gather(rank_, {}); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    TS_CHECK(color >= 0, "color {}", color);
    const std::array<int, 2> mine{color, key};
    std::vector<std::pair<int, int>> members;  // key, rank
    const auto all = team_->all_gather(rank_, std::as_bytes(std::span(mine)));
    for (int r = 0; r < size(); ++r) {
      std::array<int, 2> other{};
      std::memcpy(other.data(), all[static_cast<size_t>(r)].data(), sizeof other);
      if (other[0] == color) members.emplace_back(other[1], r);
    }
    std::sort(members.begin(), members.end());
    const auto place = std::find(members.begin(), members.end(), std::pair(key, rank_)) - members.begin();
    return std::make_unique<ThreadRank>(team_->part(color, static_cast<int>(members.size())), static_cast<int>(place));
  }
  void abort(int exit_code) override { std::_Exit(exit_code); }

 protected:
  Posted start_send(std::span<const std::byte> bytes, int to, int tag) override {
    return team_->with_messages([&](Mailbox& messages) { return messages.send({rank_, to, tag}, bytes); });
  }
  Posted start_receive(std::span<std::byte> bytes, int from, int tag) override {
    return team_->with_messages([&](Mailbox& messages) { return messages.receive({from, rank_, tag}, bytes); });
  }

 private:
  template <class T, class Op> void all_reduce(std::span<T> values, Op op) {
    traffic_.all_reduce.add(static_cast<int64_t>(values.size_bytes()));
    combine(values, op);
  }

  /// In rank order, in f64, rounded once.
  template <class T, class Op> void combine(std::span<T> values, Op op) {
    const auto all = team_->all_gather(rank_, std::as_bytes(values));
    for (size_t i = 0; i < values.size(); ++i) {
      const auto of = [&](size_t r) {
        T value;
        std::memcpy(&value, all[r].data() + i * sizeof(T), sizeof(T));
        return static_cast<double>(value);
      };
      double total = of(0);
      for (size_t r = 1; r < all.size(); ++r) total = op(total, of(r));
      values[i] = static_cast<T>(total);
    }
  }

  std::shared_ptr<Team> team_;
  int rank_;
};

/// Runs `body` on every rank and returns when all have ended. @throws what the first of them threw
inline void on_thread_ranks(int ranks, const std::function<void(Communicator&)>& body) {
  const auto team = std::make_shared<Team>(ranks);
  std::exception_ptr first;
  std::mutex first_mutex;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        ThreadRank mine(team, rank);
        body(mine);
      } catch (...) {
        {
          const std::lock_guard lock(first_mutex);
          if (!first) first = std::current_exception();
        }
        team->fail();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace tessera::test
