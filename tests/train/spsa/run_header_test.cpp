// The header of a log: what it holds, and what it refuses.

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/hex.h"
#include "train/spsa/header_changes.h"
#include "train/spsa/replicas.h"

namespace tessera {
namespace {

using namespace test;

/// What is said of a header's text with `to` in the place of `from`.
std::string refusal_of(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  try {
    RunHeader::parse(text, "header.json");
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(RunHeader, IsReadBackAndRefusesWhatDoesNotGoTogether) {
  OwnPool own;
  RunHeader h = header_of(own, Family::hadamard, 64);
  h.parent = "abc 12";
  h.optimizer = "adamw";
  const std::string text = h.text();
  EXPECT_EQ(RunHeader::parse(text, "x").text(), text);
  EXPECT_EQ(text.find("rules"), std::string::npos);
  h.rules = Rules::second;
  EXPECT_EQ(RunHeader::parse(h.text(), "x").rules, Rules::second);
  h.rules = Rules::first;
  const auto refusal = [&](const std::string& from, const std::string& to) { return refusal_of(text, from, to); };
  using testing::HasSubstr;
  EXPECT_THAT(refusal("\"eps\": \"3f50624dd2f1a9fc\"", "\"eps\": \"0000000000000000\""), HasSubstr("eps is 0"));
  EXPECT_THAT(refusal("\"eps\": \"3f50624dd2f1a9fc\"", "\"eps\": \"7ff0000000000000\""), HasSubstr("eps is inf"));
  EXPECT_THAT(refusal("\"eps\": \"3f50624dd2f1a9fc\"", "\"eps\": \"zz\""), HasSubstr("hexadecimal"));
  EXPECT_THAT(refusal("\"lanes\": 64", "\"lanes\": 60"), HasSubstr("power of two"));
  EXPECT_THAT(refusal("\"probes\": 3", "\"probes\": 0"), HasSubstr("0 probes"));
  EXPECT_THAT(refusal("\"probes\": 3", "\"probes\": 256"), HasSubstr("256 probes"));
  EXPECT_THAT(refusal("\"unit\": 9", "\"unit\": 31"), HasSubstr("unit 31 is outside -20 .. 30"));
  EXPECT_THAT(refusal("\"format\": 1", "\"format\": 3"), HasSubstr("format 3"));
  EXPECT_THAT(refusal("\"format\": 1", "\"format\": 2"), HasSubstr("aggregate"));
  EXPECT_THAT(refusal("\"unit\": 9", "\"unit\": 4294967305"), HasSubstr("unit 4294967305 is outside -20 .. 30"));
  EXPECT_THAT(refusal("\"probes\": 3", "\"probes\": 4611686018427387904"), HasSubstr("4611686018427387904 probes"));
  EXPECT_THAT(refusal("\"seed\": \"1234567855aa55aa\"", "\"seed\": \"\""), HasSubstr("hexadecimal"));
  EXPECT_THAT(refusal("\"seed\": \"1234567855aa55aa\"", "\"seed\": \"-234567855aa55aa\""), HasSubstr("hexadecimal"));
  EXPECT_THAT(refusal("\"clip\": 8", "\"clip\": 4611686018427387904"), HasSubstr("out of range"));
  EXPECT_THAT(refusal("\"optimizer\": \"adamw\"", "\"optimizer\": \"adam\""), HasSubstr("\"adam\" is not known"));
  EXPECT_THAT(refusal("\"beta1\": \"3fec", "\"beta1\": \"7ffc"), HasSubstr("momentum or a beta is nan"));
  EXPECT_THAT(refusal("\"votes\": \"byte\"", "\"votes\": \"bits\""), HasSubstr("\"bits\" is not known"));
}

RunHeader header_of_format_two() {
  OwnPool own;
  RunHeader h = header_of(own, Family::shared);
  h.stale_max = 2;
  h.terms.emplace();
  h.terms->aggregate = Aggregate::trimmed;
  h.terms->trim_percent = 25;
  h.terms->rate = {.lr = 0.008, .weight_decay = 0.1, .schedule = "cosine", .warmup_steps = 10, .final_ratio = 0.1};
  h.terms->rounds = 200;
  h.terms->privacy = {.clip = 10, .delta = 1e-5, .epsilon = 3};
  h.terms->signers = {std::string(64, '1'), std::string(64, 'a')};
  return h;
}

TEST(RunHeader, OfFormatTwoIsReadBackWithItsKeysInOrder) {
  const RunHeader h = header_of_format_two();
  const std::string text = h.text();
  const RunHeader again = RunHeader::parse(text, "x");
  EXPECT_EQ(again.text(), text);
  ASSERT_TRUE(again.terms);
  EXPECT_EQ(again.terms->aggregate, Aggregate::trimmed);
  EXPECT_EQ(again.terms->privacy->epsilon, 3);
  EXPECT_EQ(again.terms->signers, h.terms->signers);
  const Json json = Json::parse(text, "x");
  const auto& members = json.members();
  EXPECT_TRUE(std::ranges::is_sorted(members, {}, [](const auto& member) { return member.first; }));
  EXPECT_EQ(json.at("format").as_integer(), 2);
  EXPECT_EQ(double_of_hex(json.at("alpha_max").as_string()), 0.008 * 0x1p20);
  EXPECT_THAT(text, testing::HasSubstr("\"lr\": \"3f80624dd2f1a9fc\""));
}

TEST(RunHeader, OfFormatTwoTellsTheRateOfEveryRound) {
  const RunHeader h = header_of_format_two();
  const auto rate = [&](uint32_t round) { return h.terms->rate_of(round, h.rules).first; };
  EXPECT_EQ(rate(0), 0);
  EXPECT_FLOAT_EQ(rate(5), 0.004f);
  EXPECT_FLOAT_EQ(rate(10), 0.008f);
  EXPECT_FLOAT_EQ(rate(105), 0.0044f) << "in the middle of the cosine";
  EXPECT_FLOAT_EQ(h.terms->rate_of(10, h.rules).second, 1 - 0.008f * 0.1f);
}

TEST(RunHeader, OfFormatTwoRefusesWhatDoesNotGoTogether) {
  const std::string text = header_of_format_two().text();
  const auto refusal = [&](const std::string& from, const std::string& to) { return refusal_of(text, from, to); };
  using testing::HasSubstr;
  EXPECT_THAT(refusal("\"trimmed\"", "\"mode\""), HasSubstr("\"mode\" is not known"));
  EXPECT_THAT(refusal("\"directions\": \"shared\"", "\"directions\": \"independent\""), HasSubstr("shared"));
  EXPECT_THAT(refusal("\"trim_percent\": 25", "\"trim_percent\": 50"), HasSubstr("trim_percent is 50"));
  EXPECT_THAT(refusal("\"rounds\": 200", "\"rounds\": 0"), HasSubstr("0 rounds"));
  EXPECT_THAT(refusal("\"rounds\": 200", "\"rounds\": 4294967296"), HasSubstr("4294967296 rounds"));
  EXPECT_THAT(refusal("\"warmup_rounds\": 10", "\"warmup_rounds\": 201"), HasSubstr("warmup_rounds is 201"));
  EXPECT_THAT(refusal("\"cosine\"", "\"square\""), HasSubstr("\"square\" is not known"));
  EXPECT_THAT(refusal("\"lr\": \"3f80624dd2f1a9fc\"", "\"lr\": \"7ff0000000000000\""), HasSubstr("lr is inf"));
  EXPECT_THAT(refusal("\"lr\": \"3f80624dd2f1a9fc\"", "\"lr\": \"3f80624dd2f1a9fd\""), HasSubstr("alpha_max"));
  EXPECT_THAT(refusal(std::string(64, '1'), std::string(64, 'b')), HasSubstr("ascending"));
  EXPECT_THAT(refusal(std::string(64, '1'), std::string(64, 'a')), HasSubstr("ascending"));
  EXPECT_THAT(refusal(std::string(64, '1'), std::string(63, '1')), HasSubstr("no public key"));
  EXPECT_THAT(refusal("\"delta\": \"3ee4f8b588e368f1\"", "\"delta\": \"0000000000000000\""), HasSubstr("privacy"));
}

TEST(RunHeader, TellsWhichTermDiffers) {
  const RunHeader before = header_of_format_two();
  RunHeader now = before;
  now.terms->rate.lr = 0.01;
  now.terms->rounds = 300;
  now.terms->aggregate = Aggregate::median;
  std::vector<std::string> keys;
  for (const HeaderChange& change : header_changes(before, now)) keys.push_back(change.key + " " + change.now);
  EXPECT_THAT(keys, testing::UnorderedElementsAre("optimizer.lr 0.01", "train.steps 300", "spsa.aggregate median"));
  now = before;
  now.terms.reset();
  EXPECT_FALSE(header_changes(before, now).empty());
}

TEST(RunHeader, ChangesAreToldInTheRecipesWords) {
  OwnPool own;
  const RunHeader before = header_of(own);
  EXPECT_TRUE(header_changes(before, before).empty());
  const auto told = [&](const std::function<void(RunHeader&)>& change) {
    RunHeader now = before;
    change(now);
    EXPECT_NE(now.text(), before.text());
    std::string text;
    for (const HeaderChange& c : header_changes(before, now)) text += c.key + " " + c.before + " " + c.now + "\n";
    return text;
  };
  EXPECT_EQ(told([](RunHeader& h) { h.eps = static_cast<double>(0.02f); }), "spsa.eps 0.001 0.02\n");
  EXPECT_EQ(told([](RunHeader& h) {
              h.seed = 7;
              h.start = "other values follow";
            }),
            "train.seed 1311768466304947626 7\n");
  EXPECT_EQ(told([](RunHeader& h) {
              h.votes = VoteKind::sign;
              h.adapt_unit = false;
            }),
            "spsa.votes byte sign\n");
  EXPECT_EQ(told([](RunHeader& h) {
              h.family = Family::pool;
              h.lanes = 16;
            }),
            "spsa.directions independent pool\n");
  EXPECT_EQ(told([](RunHeader& h) {
              h.optimizer = "adamw";
              h.beta2 = 0.99;
            }),
            "optimizer.name sgd adamw\n");
  EXPECT_EQ(told([](RunHeader& h) { h.momentum = 0.5; }), "optimizer.momentum 0 0.5\n");
  EXPECT_THAT(told([](RunHeader& h) { h.start = "abc"; }), testing::HasSubstr("the values that training begins with"));
  EXPECT_THAT(told([](RunHeader& h) { h.manifest.pop_back(); }), testing::HasSubstr("a trained tensor"));
  for (const auto& change : std::vector<std::function<void(RunHeader&)>>{
           [](RunHeader& h) { h.m = 4; }, [](RunHeader& h) { h.unit = 6; }, [](RunHeader& h) { h.clip = 0; },
           [](RunHeader& h) { h.digest_every = 3; }, [](RunHeader& h) { h.adapt_unit = false; },
           [](RunHeader& h) { h.stale_max = 2; }, [](RunHeader& h) { h.base = "b"; },
           [](RunHeader& h) { h.selection = "s"; }, [](RunHeader& h) { h.rules = Rules::second; }})
    EXPECT_NE(told(change), "") << "each that the log compares is told";
}

TEST(RunHeader, NamesTheFirstTensorThatDiffers) {
  OwnPool own;
  RunHeader h = header_of(own);
  EXPECT_NO_THROW(require_same_manifest(h, own.params(), "log"));
  h.manifest[1] = "b [131] from 512";
  try {
    require_same_manifest(h, own.params(), "log");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(),
                testing::HasSubstr("the log has \"b [131] from 512\", the model \"b [130] from 512 no decay\""));
  }
}

}  // namespace
}  // namespace tessera
