#pragma once
// A call of the library waits for the server's answer as long as it was told to, and nothing wakes it but the end of
// its connection. A process that was asked to stop has better things to do than to wait for a server that hangs: a
// thread watches, and ends the connection.

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

namespace tessera {

class NatsHurry {
 public:
  /// @param is_asked  whether the process was asked to stop; called from another thread, like `cut`
  /// @param cut       ends all waits; called once at most, when one has lasted for a second and a stop was asked for
  NatsHurry(std::function<bool()> is_asked, std::function<void()> cut)
      : is_asked_(std::move(is_asked)),
        cut_(std::move(cut)),
        thread_([this](const std::stop_token& token) { watch(token); }) {}

  /// The caller waits for the server as long as this lives. Calls come from one thread.
  class Wait {
   public:
    explicit Wait(NatsHurry& hurry) : hurry_(hurry) { hurry_.begun_ = now(); }
    ~Wait() { hurry_.begun_ = kNever; }
    Wait(const Wait&) = delete;

   private:
    NatsHurry& hurry_;
  };
  bool has_cut() const { return has_cut_; }

 private:
  static constexpr int64_t kNever = -1, kLongestMs = 1000;  // of a wait, where a stop was asked for
  static int64_t now() {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
  }
  void watch(const std::stop_token& token) {
    for (; !token.stop_requested() && !has_cut_; std::this_thread::sleep_for(std::chrono::milliseconds(50))) {
      const int64_t begun = begun_;
      if (begun == kNever || now() - begun < kLongestMs || !is_asked_()) continue;
      has_cut_ = true;
      cut_();
    }
  }

  std::function<bool()> is_asked_;
  std::function<void()> cut_;
  std::atomic<int64_t> begun_{kNever};
  std::atomic<bool> has_cut_{false};
  std::jthread thread_;  // the last member: it begins when the others are there, and ends before they go
};

}  // namespace tessera
