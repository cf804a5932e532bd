#include "steplog/stream_records.h"

#include <gtest/gtest.h>

#include "steplog/samples.h"
#include "support/error_text.h"

namespace tessera::test {
namespace {

Bytes record(uint64_t index, float alpha = 1) {
  Record record;
  record.index = index;
  record.alpha = alpha;
  return encode(record);
}

std::vector<Bytes> records(std::initializer_list<uint64_t> indices) {
  std::vector<Bytes> all;
  for (const uint64_t index : indices) all.push_back(record(index));
  return all;
}

TEST(StreamRecords, IndicesFollowTheRecordsAndNotTheSequences) {
  StreamRecords stream;
  stream.take(2, record(0));
  stream.skip(3);  // a message that is none
  stream.take(40, record(1));
  EXPECT_EQ(stream.next_index(), 2u);
  EXPECT_EQ(stream.last_sequence(), 40u);
  EXPECT_EQ(stream.read(0), records({0, 1}));
}

TEST(StreamRecords, AMessageSeenAlreadyChangesNothing) {
  StreamRecords stream;
  stream.take(2, record(0));
  stream.take(3, record(1));
  stream.take(2, record(0, 7));  // another one of an old sequence: not looked at
  stream.take(3, record(1));
  EXPECT_EQ(stream.read(0), records({0, 1}));
  EXPECT_FALSE(stream.fork());
}

TEST(StreamRecords, ReadDropsWhatIsBefore) {
  StreamRecords stream;
  for (uint64_t i = 0; i < 5; ++i) stream.take(2 + i, record(i));
  EXPECT_EQ(stream.read(3), records({3, 4}));
  EXPECT_EQ(stream.first_kept(), 3u);
  EXPECT_TRUE(stream.read(2).empty());
  EXPECT_TRUE(stream.read(6).empty()) << "not there yet";
  EXPECT_EQ(stream.read(3), records({3, 4})) << "asked again";
  EXPECT_TRUE(stream.read(5).empty());
  stream.take(9, record(5));
  EXPECT_EQ(stream.read(5), records({5}));
}

TEST(StreamRecords, WhatStandsBehindAGapWaitsUntilItIsFilled) {
  StreamRecords stream;
  stream.take(2, record(0));
  stream.take(6, record(3));
  stream.take(7, record(4));
  EXPECT_TRUE(stream.gap());
  EXPECT_EQ(stream.next_index(), 1u);
  EXPECT_EQ(stream.read(0), records({0}));
  stream.take(8, record(1));
  EXPECT_EQ(stream.next_index(), 2u);
  EXPECT_TRUE(stream.gap());
  stream.take(9, record(2));
  EXPECT_FALSE(stream.gap());
  EXPECT_FALSE(stream.fork());
  EXPECT_EQ(stream.next_index(), 5u);
  EXPECT_EQ(stream.read(0), records({0, 1, 2, 3, 4}));
  EXPECT_EQ(stream.last_sequence(), 9u);
}

TEST(StreamRecords, ARecordPublishedAgainIsTheSameOrAFork) {
  StreamRecords stream;
  stream.take(2, record(0));
  stream.take(3, record(1));
  stream.take(4, record(5));
  stream.take(5, record(0));
  stream.take(6, record(5));
  EXPECT_FALSE(stream.fork());
  EXPECT_EQ(stream.next_index(), 2u);
  stream.take(7, record(5, 2));
  EXPECT_EQ(stream.fork(), 5u) << "one that waits";
  stream.take(8, record(1, 2));
  EXPECT_EQ(stream.fork(), 5u) << "the first one stays";
  EXPECT_EQ(stream.read(0), records({0, 1})) << "the first one counts";
}

TEST(StreamRecords, SaysWhetherARecordIsThere) {
  StreamRecords stream;
  stream.take(2, record(0));
  stream.take(3, record(2));
  EXPECT_EQ(stream.holds(0, record(0)), true);
  EXPECT_EQ(stream.holds(0, record(0, 2)), false);
  EXPECT_EQ(stream.holds(1, record(1)), std::nullopt);
  EXPECT_EQ(stream.holds(2, record(2)), true) << "behind a gap";
  EXPECT_EQ(stream.holds(2, record(2, 2)), false);
}

TEST(StreamRecords, AMessageThatIsNoRecordHaltsTheRun) {
  StreamRecords stream;
  Bytes broken = record(0);
  broken[40] ^= std::byte{1};
  EXPECT_EQ(error_text([&] { stream.take(2, broken); }),
            "the engine's log: message 2 is no record (crc: the checksum does not match)\n"
            "  who packs has gone astray, or the engine's disk has; the machines' own logs are good up to here");
  EXPECT_EQ(stream.next_index(), 0u);
}

}  // namespace
}  // namespace tessera::test
