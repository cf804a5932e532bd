// Every transport keeps the manners that it states.

#include "steplog/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "steplog/samples.h"
#include "steplog/step_log.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

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
  /// A first record, another for each dice.
  static Bytes first_record(uint64_t dice) {
    const TemporaryFolder folder;
    Chain chain(StepLog::create(folder / "log", kHeader, {}).run());
    chain.dice = Dice(dice);
    return chain.add(chain.first_round(2));
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
INSTANTIATE_TEST_SUITE_P(Transports, EachTransport, testing::ValuesIn(all_names()),
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
