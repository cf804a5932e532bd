// Every transport keeps the manners that it states.

#include "steplog/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>

#include "core/error.h"
#include "steplog/samples.h"
#include "steplog/step_log.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;
using Append = LogEngine::Append;
using Manners = LogEngine::Manners;
using Votes = std::vector<Bytes>;

class EachTransport : public testing::TestWithParam<std::string> {
 protected:
  EachTransport()
      : world_(self_communicator()), transport_(transport_named(GetParam())), manners_(transport_.manners) {}

  std::unique_ptr<LogEngine> engine(uint64_t log_size = 0) const {
    return transport_.make(
        {.world = *world_, .folder = folder_ / "shared", .header_json = kHeader, .log_size = log_size});
  }
  /// Records that follow one another, others for each dice.
  static Chain chain(uint64_t dice) {
    const TemporaryFolder folder;
    Chain records(StepLog::create(folder / "log", kHeader, {}).run());
    records.dice = Dice(dice);
    return records;
  }
  static Bytes next_of(Chain& records) {
    return records.add(records.rules.next_index() == 0 ? records.first_round(2) : records.round());
  }
  static Bytes first_record(uint64_t dice) {
    Chain records = chain(dice);
    return next_of(records);
  }
  /// So many records, appended.
  static Votes append_to(LogEngine& log, Chain& records, uint64_t count) {
    Votes appended;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t number = records.rules.next_index();
      appended.push_back(next_of(records));
      EXPECT_EQ(log.append(number, appended.back()), Append::won) << number;
    }
    return appended;
  }
  /// All records that an engine finds that is made now; nothing when the log is refused.
  std::optional<Votes> records_found() const {
    try {
      return engine()->read(0);
    } catch (const UserError&) {
      return std::nullopt;
    }
  }
  std::map<fs::path, uintmax_t> files() const {
    std::map<fs::path, uintmax_t> sizes;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / "shared"))
      if (entry.is_regular_file()) sizes[entry.path()] = entry.file_size();
    return sizes;
  }
  static Bytes vote() {
    Vote vote;
    vote.bytes = Dice(3).bytes(5);
    return encode(vote);
  }

  TemporaryFolder folder_;
  std::unique_ptr<Communicator> world_;
  const Transport& transport_;
  const Manners& manners_;
};

TEST_P(EachTransport, GivesAMachineItsOwnVoteBackOnce) {
  const auto mine = engine();
  mine->publish_vote(vote());
  mine->wait(std::chrono::milliseconds(1));
  EXPECT_EQ(mine->take_votes(), Votes{vote()});
  mine->wait(std::chrono::milliseconds(1));
  EXPECT_TRUE(mine->take_votes().empty());
}

TEST_P(EachTransport, CountsTheBytesOfAMessage) {
  const auto mine = engine();
  mine->publish_vote(vote());
  mine->wait(std::chrono::milliseconds(1));
  EXPECT_EQ(mine->traffic().up, static_cast<int64_t>(vote().size()) + manners_.bytes_of_message);
}

TEST_P(EachTransport, GivesRecordsBackInOrderFromAnyNumber) {
  const auto mine = engine();
  Chain records = chain(1);
  const Votes all = append_to(*mine, records, 12);
  for (ptrdiff_t from = 0; from <= 12; ++from)
    EXPECT_EQ(mine->read(static_cast<uint64_t>(from)), Votes(all.begin() + from, all.end())) << from;
}

TEST_P(EachTransport, OfTwoWhoAppendNoneLosesOrRepeatsARecord) {
  const bool one_log = manners_.total_order == Manners::Order::one_log;
  const std::unique_ptr<LogEngine> engines[] = {engine(), engine()};
  Chain chains[] = {chain(1), chain(one_log ? 2 : 1)};  // those with copies form the same records
  Dice dice(7);
  Votes won;
  for (uint64_t number = 0; number < 20; ++number) {
    const size_t first = dice.below(2), second = 1 - first;
    won.push_back(next_of(chains[first]));
    ASSERT_EQ(engines[first]->append(number, won.back()), Append::won) << number;
    if (one_log) {
      Chain tried = chains[second];
      ASSERT_EQ(engines[second]->append(number, next_of(tried)), Append::conflict) << number;
      const Votes theirs = engines[second]->read(number);
      ASSERT_EQ(theirs, Votes{won.back()}) << number;
      chains[second].add(std::get<Record>(decode_record(theirs[0])));
    } else {
      ASSERT_EQ(engines[second]->append(number, next_of(chains[second])), Append::won) << number;
    }
  }
  for (const auto& each : engines) EXPECT_EQ(each->read(0), won);
}

TEST_P(EachTransport, OrdersRecordsInOneLogOrInCopies) {
  const auto mine = engine(), other = engine();
  ASSERT_EQ(mine->append(0, first_record(1)), Append::won);
  const Append second = other->append(0, first_record(2));
  if (manners_.total_order == Manners::Order::one_log) {
    EXPECT_EQ(second, Append::conflict);
    EXPECT_EQ(other->read(0), Votes{first_record(1)});
  } else {
    EXPECT_EQ(second, Append::won);
    EXPECT_EQ(other->read(0), Votes{first_record(2)});
  }
  EXPECT_EQ(mine->read(0), Votes{first_record(1)});
  EXPECT_EQ(mine->append(0, first_record(3)), Append::conflict) << "the log has moved on";
}

TEST_P(EachTransport, BeginsWithItsLogOrBehindWhatMachinesHandedOver) {
  engine()->append(0, first_record(1));
  if (manners_.catch_up == Manners::CatchUp::from_log) {
    EXPECT_EQ(engine()->read(0), Votes{first_record(1)});
  } else {
    EXPECT_TRUE(engine()->read(0).empty()) << "nothing outlives an engine";
    EXPECT_TRUE(engine(1)->read(1).empty());
    EXPECT_EQ(engine(1)->append(0, first_record(1)), Append::conflict);
  }
}

TEST_P(EachTransport, ALogThatWasCutOffAmidARecordGoesOnBehindTheOneBefore) {
  if (manners_.catch_up != Manners::CatchUp::from_log) GTEST_SKIP() << "nothing outlives an engine";
  Chain records = chain(1);
  const Votes kept = append_to(*engine(), records, 3);
  const auto before = files();
  const Votes lost = append_to(*engine(), records, 1);
  for (const auto& [file, size] : files()) {
    const auto known = before.find(file);
    const uintmax_t from = known == before.end() ? 0 : known->second;
    const std::string whole = read_file(file);
    for (uintmax_t length = from; length < size; ++length) {
      write_file(file, whole.substr(0, length));
      ASSERT_EQ(records_found(), kept) << file << " of " << length << " bytes";
      ASSERT_EQ(engine()->append(3, lost[0]), Append::won) << file << " of " << length << " bytes";
    }
  }
  Votes all = kept;
  all.push_back(lost[0]);
  EXPECT_EQ(records_found(), all);
}

TEST_P(EachTransport, ADamagedRecordIsNeverGivenBack) {
  if (manners_.catch_up != Manners::CatchUp::from_log) GTEST_SKIP() << "nothing outlives an engine";
  Chain records = chain(1);
  const Votes all = append_to(*engine(), records, 3), kept(all.begin(), all.end() - 1);
  for (const auto& [file, size] : files()) {
    const std::string whole = read_file(file);
    for (size_t at = 0; at < size; ++at) {
      std::string changed = whole;
      changed[at] ^= static_cast<char>(1 << (at % 8));
      write_file(file, changed);
      if (const auto found = records_found()) {
        ASSERT_TRUE(*found == kept || *found == all) << file << ", byte " << at;
      }
      write_file(file, whole);
    }
  }
  EXPECT_EQ(records_found(), all);
}

TEST_P(EachTransport, ManyWhoFormOneRecordAppendItEachAndStopTogether) {
  const bool each = manners_.who_packs == Manners::Packer::each;
  EXPECT_EQ(each, manners_.total_order == Manners::Order::copies) << "a copy that nobody appends to lacks records";
  EXPECT_TRUE(!each || manners_.stop_in_votes) << "the others would wait for who left";
}

TEST_P(EachTransport, NumbersMachinesAsItsProcessesAreStarted) {
  const auto members = transport_.join({.rank = 2, .ranks = 3, .machine = 5, .machines = 9});
  EXPECT_EQ(members->machine(), transport_.shares_folder() ? 5u : 2u);
  EXPECT_EQ(members->machines(), transport_.shares_folder() ? 9u : 3u);
}

std::vector<std::string> all_names() {
  std::vector<std::string> names;
  for (const Transport& transport : transports()) names.emplace_back(transport.name);
  return names;
}
/// Those that need nothing but this machine; tests of the one that needs a server are nats_engine_test.cpp.
std::vector<std::string> own_names() {
  std::vector<std::string> names;
  for (const Transport& transport : transports())
    if (!transport.is_loose()) names.emplace_back(transport.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Transports, EachTransport, testing::ValuesIn(own_names()),
                         [](const auto& info) { return info.param; });

TEST(Transports, AreKnownByNamesOfTheirOwn) {
  const std::vector<std::string> names = all_names();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
  std::vector<std::string> choices{"auto"};
  choices.insert(choices.end(), names.begin(), names.end());
  EXPECT_EQ(transport_choices(), choices);
  EXPECT_EQ(&transport_named("auto"), &transports().front());
  EXPECT_EQ(transports().front().processes, Transport::Processes::ranks_of_a_job) << "what is right for any job";
  EXPECT_THAT(transport_help(), testing::StartsWith("auto, " + names.front() + ": "));
  for (const Transport& transport : transports())
    EXPECT_THAT(transport_help(), testing::HasSubstr(fmt::format("{}: {}", transport.name, transport.help)));
}

}  // namespace
}  // namespace tessera::test
