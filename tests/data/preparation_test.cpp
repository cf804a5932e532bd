// Documents become tokens on the threads that a job has: so many, and the same tokens with any number.

#include "data/preparation.h"

#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "data/token_files.h"

namespace tessera {
namespace {

using namespace test;

class PreparationThreads : public TokenFile {
 protected:
  /// Several batches of text, with documents of unlike lengths.
  DataConfig unlike_documents(int count) {
    std::string content;
    for (int i = 0; i < count; ++i) {
      content += R"({"text": ")";
      for (int word = 0; word < (i * 7919) % 61; ++word) content += (i + word) % 3 == 0 ? "a " : "b c = ";
      content += "\"}\n";
    }
    return source(content);
  }
  PreparedData prepared(const DataConfig& config, int threads) {
    return prepare(open_source(config, Split::train), words_, config, threads);
  }
};

/// The most threads that this process had while f ran.
template <class F> int64_t most_threads(F&& f) {
  const auto now = [] {
    const fs::directory_iterator tasks("/proc/self/task");
    return static_cast<int64_t>(std::distance(begin(tasks), end(tasks)));
  };
  std::atomic<bool> has_ended{false};
  std::atomic<int64_t> most{0};
  std::thread watcher([&] {
    while (!has_ended) most = std::max(most.load(), now());
  });
  while (most == 0) std::this_thread::yield();
  f();
  has_ended = true;
  watcher.join();
  return most;
}

TEST_F(PreparationThreads, DoNotChangeWhatIsPrepared) {
  const DataConfig config = unlike_documents(20'000);
  const PreparedData one = prepared(config, 1);
  for (const int threads : {2, 3, 7}) {
    SCOPED_TRACE(threads);
    const PreparedData more = prepared(config, threads);
    EXPECT_EQ(more.data.tokens, one.data.tokens);
    EXPECT_EQ(more.data.scored, one.data.scored);
    EXPECT_EQ(more.data.ends, one.data.ends);
  }
}

TEST_F(PreparationThreads, AreAsManyAsTheJobHas) {
  const DataConfig config = unlike_documents(50'000);
  const int64_t idle = most_threads([] {});
  EXPECT_EQ(most_threads([&] { prepared(config, 1); }), idle + 1);
  EXPECT_EQ(most_threads([&] { prepared(config, 5); }), idle + 5);
}

}  // namespace
}  // namespace tessera
