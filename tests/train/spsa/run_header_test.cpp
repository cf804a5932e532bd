// The header of a log: what it holds, and what it refuses.

#include <gmock/gmock.h>

#include "core/error.h"
#include "train/spsa/header_changes.h"
#include "train/spsa/replicas.h"

namespace tessera {
namespace {

using namespace test;

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
  const auto refusal = [&](const std::string& from, const std::string& to) -> std::string {
    std::string altered = text;
    const size_t at = altered.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    altered.replace(at, from.size(), to);
    try {
      RunHeader::parse(altered, "header.json");
    } catch (const UserError& error) {
      return error.what();
    }
    return "accepted";
  };
  using testing::HasSubstr;
  EXPECT_THAT(refusal("\"eps\": \"3f50624dd2f1a9fc\"", "\"eps\": \"0000000000000000\""), HasSubstr("eps is 0"));
  EXPECT_THAT(refusal("\"eps\": \"3f50624dd2f1a9fc\"", "\"eps\": \"7ff0000000000000\""), HasSubstr("eps is inf"));
  EXPECT_THAT(refusal("\"eps\": \"3f50624dd2f1a9fc\"", "\"eps\": \"zz\""), HasSubstr("hexadecimal"));
  EXPECT_THAT(refusal("\"lanes\": 64", "\"lanes\": 60"), HasSubstr("power of two"));
  EXPECT_THAT(refusal("\"probes\": 3", "\"probes\": 0"), HasSubstr("0 probes"));
  EXPECT_THAT(refusal("\"probes\": 3", "\"probes\": 256"), HasSubstr("256 probes"));
  EXPECT_THAT(refusal("\"unit\": 9", "\"unit\": 31"), HasSubstr("unit 31 is outside -20 .. 30"));
  EXPECT_THAT(refusal("\"format\": 1", "\"format\": 2"), HasSubstr("format 2"));
  EXPECT_THAT(refusal("\"unit\": 9", "\"unit\": 4294967305"), HasSubstr("unit 4294967305 is outside -20 .. 30"));
  EXPECT_THAT(refusal("\"probes\": 3", "\"probes\": 4611686018427387904"), HasSubstr("4611686018427387904 probes"));
  EXPECT_THAT(refusal("\"seed\": \"1234567855aa55aa\"", "\"seed\": \"\""), HasSubstr("hexadecimal"));
  EXPECT_THAT(refusal("\"seed\": \"1234567855aa55aa\"", "\"seed\": \"-234567855aa55aa\""), HasSubstr("hexadecimal"));
  EXPECT_THAT(refusal("\"clip\": 8", "\"clip\": 4611686018427387904"), HasSubstr("out of range"));
  EXPECT_THAT(refusal("\"optimizer\": \"adamw\"", "\"optimizer\": \"adam\""), HasSubstr("\"adam\" is not known"));
  EXPECT_THAT(refusal("\"beta1\": \"3fec", "\"beta1\": \"7ffc"), HasSubstr("momentum or a beta is nan"));
  EXPECT_THAT(refusal("\"votes\": \"byte\"", "\"votes\": \"bits\""), HasSubstr("\"bits\" is not known"));
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
