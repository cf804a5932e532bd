// The budget of a machine: counted before anything is sent, and never forgotten.

#include "train/spsa/privacy/privacy_ledger.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/json.h"
#include "support/paths.h"

namespace tessera {
namespace {

using testing::HasSubstr;

class Ledger : public testing::Test {
 protected:
  static PrivacyTerms terms() {
    return {.run = "9f",
            .node = "a",
            .documents = 400,
            .release = {.q = 0.01, .sigma = 1},
            .clip = 10,
            .delta = 1e-5,
            .epsilon = 3};
  }
  PrivacyLedger open(PrivacyTerms terms = Ledger::terms(), int64_t in_log = 0) const {
    return PrivacyLedger(file(), std::move(terms), in_log);
  }
  std::string refusal(PrivacyTerms terms, int64_t in_log = 0) const {
    try {
      open(std::move(terms), in_log);
    } catch (const UserError& error) {
      return error.what();
    }
    return "accepted";
  }
  std::filesystem::path file() const { return folder_ / "privacy.json"; }

  test::TemporaryFolder folder_;
};

TEST_F(Ledger, SpendsUntilTheBudgetIsGoneAndNoFurther) {
  PrivacyLedger ledger = open();
  const int64_t budget = releases_within(3, terms().release, 1e-5);
  int64_t spent = 0;
  while (ledger.spend(4)) spent += 4;
  EXPECT_EQ(spent, budget / 4 * 4);
  EXPECT_EQ(ledger.releases(), spent);
  EXPECT_FALSE(ledger.spend(4)) << "nothing was counted for what was refused";
  EXPECT_EQ(open().releases(), spent);
  const Json kept = Json::parse(test::read_file(file()), "privacy.json");
  EXPECT_LE(kept.at("epsilon_spent").as_number(), 3);
  EXPECT_DOUBLE_EQ(kept.at("epsilon_spent").as_number(), epsilon_of(spent, terms().release, 1e-5));
}

TEST_F(Ledger, IsOnTheDiskBeforeSpendReturns) {
  PrivacyLedger ledger = open();
  for (int64_t k = 1; k <= 5; ++k) {
    ASSERT_TRUE(ledger.spend(16));
    EXPECT_EQ(Json::parse(test::read_file(file()), "privacy.json").at("releases").as_integer(), 16 * k);
  }
}

TEST_F(Ledger, RefusesOtherTermsOlderCopiesAndAMissingFile) {
  EXPECT_THAT(refusal(terms(), 12), HasSubstr("is missing, and the log holds 12 votes"));
  {
    PrivacyLedger ledger = open();
    ASSERT_TRUE(ledger.spend(16));
  }
  EXPECT_EQ(refusal(terms(), 16), "accepted");
  EXPECT_THAT(refusal(terms(), 17), HasSubstr("tells of 16 releases, and the log holds 17"));
  const auto changed = [&](const std::function<void(PrivacyTerms&)>& change) {
    PrivacyTerms other = terms();
    change(other);
    return refusal(other);
  };
  EXPECT_THAT(changed([](auto& t) { t.documents = 401; }), HasSubstr("\"documents\" was 400 when this node began"));
  EXPECT_THAT(changed([](auto& t) { t.release.sigma = 0.5; }), HasSubstr("\"sigma\""));
  EXPECT_THAT(changed([](auto& t) { t.epsilon = 8; }), HasSubstr("\"epsilon\""));
  EXPECT_THAT(changed([](auto& t) { t.run = "aa"; }), HasSubstr("\"run\""));
  EXPECT_THAT(changed([](auto& t) { t.node = "b"; }), HasSubstr("\"node\""));
  test::write_file(file(), test::read_file(file()).substr(0, 40));
  EXPECT_THAT(refusal(terms()), HasSubstr("privacy.json"));
}

}  // namespace
}  // namespace tessera
