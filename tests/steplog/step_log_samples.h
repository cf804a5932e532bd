#pragma once
// Step logs to test with, and what is in them.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "steplog/samples.h"
#include "steplog/step_log.h"

namespace tessera::test {

inline std::vector<Bytes> records_of(const StepLog& log, uint64_t from = 0) {
  std::vector<Bytes> all;
  log.for_each(from, [&](const Record& record, std::span<const std::byte> encoded) {
    EXPECT_EQ(record.index, from + all.size());
    all.emplace_back(encoded.begin(), encoded.end());
    return true;
  });
  return all;
}

/// A log of four machines, and what was appended to it.
struct Written {
  explicit Written(const std::filesystem::path& folder, int rounds, int64_t segment_bytes = int64_t{64} << 20,
                   uint8_t m = 4) {
    StepLog log = StepLog::create(folder, kHeader, {.segment_bytes = segment_bytes});
    Chain chain(log.run());
    for (int i = 0; i < rounds; ++i) {
      records.push_back(chain.add(i == 0 ? chain.first_round(4, m) : chain.round(m)));
      log.append(records.back());
    }
  }
  std::vector<Bytes> records;
};

inline std::vector<std::string> files_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// The log's next record, as an append by this process.
inline void append_one(StepLog& log) {
  Chain chain(log.run());
  chain.rules = log.chain();
  log.append(chain.add(log.chain().roster().empty() ? chain.first_round(4) : chain.round()));
}

}  // namespace tessera::test
