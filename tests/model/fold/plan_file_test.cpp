#include "model/fold/plan_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "support/fold_plans.h"
#include "support/paths.h"

namespace tessera {
namespace {

// One key a line: replacing a line makes a fault with a known place.
constexpr std::string_view kLines[] = {
    R"({)",                                                                         // 1
    R"(  "format": "tessera fold plan",)",                                          // 2
    R"(  "version": 1,)",                                                           // 3
    R"(  "base": {"fingerprint":"9f31","layers":9,"model_type":"llama"},)",         // 4
    R"(  "removed": [5],)",                                                         // 5
    R"(  "removed_halves": [{"block":3,"part":"mlp"},{"block":4,"part":"mlp"}],)",  // 6
    R"(  "groups": [)",                                                             // 7
    R"(    {"blocks":[0]},)",                                                       // 8
    R"(    {"blocks":[1,2],"parent":1,"values":"own"},)",                           // 9
    R"(    {"blocks":[3,4],"values":"mean"},)",                                     // 10
    R"(    {"blocks":[6],"values":"trained"},)",                                    // 11
    R"(    {"blocks":[7,8],"parent":8,"values":"own"})",                            // 12
    R"(  ],)",                                                                      // 13
    R"(  "child": {"level":"lora","rank":4},)",                                     // 14
    R"(  "history": {)",                                                            // 15
    R"(    "rho": 0.125)",                                                          // 16
    R"(  })",                                                                       // 17
    R"(})"};                                                                        // 18

std::string text_with(size_t line = 0, std::string_view replacement = {}) {
  std::string text;
  for (size_t i = 0; i < std::size(kLines); ++i) text += std::string(i + 1 == line ? replacement : kLines[i]) + "\n";
  return text;
}

std::string error_of(const std::string& text, const std::optional<FoldBase>& base = std::nullopt) {
  try {
    parse_fold_plan(text, "plan.json", base);
    return "none";
  } catch (const UserError& error) {
    return error.where() + ": " + error.message();
  }
}
std::string error_with(size_t line, std::string_view replacement) { return error_of(text_with(line, replacement)); }

TEST(FoldPlanFile, IsReadAndWrittenAgainInTheSameBytes) {
  const FoldPlan plan = parse_fold_plan(text_with(), "plan.json");
  EXPECT_EQ(plan.base.layers, 9);
  EXPECT_EQ(plan.groups[0], (FoldGroup{{0}, 0, GroupValues::own}));
  EXPECT_EQ(plan.groups[2], (FoldGroup{{3, 4}, std::nullopt, GroupValues::mean}));
  EXPECT_EQ(plan.groups[3], (FoldGroup{{6}, 6, GroupValues::trained}));
  EXPECT_EQ(plan.removed_halves, (std::vector<RemovedHalf>{{3, BlockHalf::mlp}, {4, BlockHalf::mlp}}));
  EXPECT_EQ(plan.child, (FoldChild{ChildLevel::lora, 4}));
  EXPECT_EQ(plan.history.at("rho").as_number(), 0.125);
  EXPECT_EQ(fold_plan_text(plan), text_with());
}

TEST(FoldPlanFile, OfRandomPlansRoundTrips) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    std::mt19937_64 random(seed);
    const FoldPlan plan = test::random_fold_plan(random);
    const std::string text = fold_plan_text(plan);
    const FoldPlan read = parse_fold_plan(text, "plan.json", plan.base);
    EXPECT_EQ(fold_plan_text(read), text) << seed;
    EXPECT_EQ(read.groups, plan.groups) << seed;
    EXPECT_EQ(read.removed, plan.removed) << seed;
    EXPECT_EQ(read.removed_halves, plan.removed_halves) << seed;
    EXPECT_EQ(read.child, plan.child) << seed;
    EXPECT_EQ(read.base.fingerprint, plan.base.fingerprint) << seed;
    EXPECT_EQ(read.history.dump(), plan.history.dump()) << seed;
  }
}

TEST(FoldPlanFile, MayLeaveOutFingerprintAndHistoryAndBeLaidOutInAnyWay) {
  const FoldPlan plan = parse_fold_plan(
      "{\"child\":{\"rank\":0,\"level\":\"norm\"},\"groups\":[{\"values\":\"own\",\"blocks\":[0],\"parent\":0}],"
      "\"removed_halves\":[],\"removed\":[1],\"base\":{\"model_type\":\"llama\",\"layers\":2},\"version\":1,"
      "\"format\":\"tessera fold plan\"}",
      "plan.json");
  EXPECT_EQ(plan.base.fingerprint, "");
  EXPECT_TRUE(plan.history.is_null());
  EXPECT_EQ(fold_plan_json(plan).at("groups").dump(), R"([{"blocks":[0]}])");
}

TEST(FoldPlanFile, IsWrittenWholeAndNamedInErrors) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "fold_plan.json";
  write_fold_plan(file, parse_fold_plan(text_with(), "plan.json"));
  EXPECT_EQ(read_fold_plan(file).removed, std::vector<int64_t>{5});
  std::ofstream(file) << text_with(9, R"(    {"blocks":[1,1],"parent":1,"values":"own"},)");
  try {
    read_fold_plan(file);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(error.where(), "fold: " + file.string() + ":9");
    EXPECT_EQ(error.message(), "block 1 stands twice in group 1");
  }
}

TEST(FoldPlanFile, NamesLineAndBlockOfWhatIsWrongWithGroups) {
  const std::pair<std::string_view, std::string_view> faults[] = {
      {R"(    {"blocks":[1,2,0],"parent":1,"values":"own"},)", "block 0 stands in two groups"},
      {R"(    {"blocks":[1,2,2],"parent":1,"values":"own"},)", "block 2 stands twice in group 1"},
      {R"(    {"blocks":[2,1],"parent":1,"values":"own"},)", "block 2 is out of order: block 1 comes first"},
      {R"(    {"blocks":[1,2,5],"parent":1,"values":"own"},)", "block 5 is removed and stands in group 1"},
      {R"(    {"blocks":[1,2,9],"parent":1,"values":"own"},)", "there is no block 9: the plan is of 9 layers, 0 to 8"},
      {R"(    {"blocks":[-1,2],"parent":1,"values":"own"},)", "there is no block -1: the plan is of 9 layers, 0 to 8"},
      {R"(    {"blocks":[],"parent":1,"values":"own"},)", "group 1 is empty"},
      {R"(    {"blocks":[1,2],"parent":3,"values":"own"},)", "block 3 is the parent of group 1 and not in it"},
      {R"(    {"blocks":[1,2],"values":"own"},)", "group 1 names no parent"},
      {R"(    {"blocks":[1,2],"parent":1},)", "groups[1]: the key \"values\" is missing"},
      {R"(    {"parent":1,"values":"own"},)", "groups[1]: the key \"blocks\" is missing"},
      {R"(    {"blocks":[1,2],"parent":1,"values":"mean"},)",
       "group 1 has weights of its own, the mean: it has no parent"},
      {R"(    {"blocks":[1,2],"parent":1,"values":"trained"},)",
       "trained weights are those of one block: group 1 has 2"},
      {R"(    {"blocks":[1,2],"parent":1,"values":"average"},)",
       "groups[1]: \"average\" is none of \"own\", \"mean\", \"wmean\", \"trained\""},
      {R"(    {"blocks":[1,2],"perent":1,"values":"own"},)", "unknown key \"perent\""},
      {R"(    {"blocks":[1,2.5],"parent":1,"values":"own"},)",
       "groups[1].blocks[1]: expected an integer, found a number"},
      {R"(    {"blocks":1,"parent":1,"values":"own"},)", "groups[1].blocks: expected an array, found a number"},
      {R"(    [1,2],)", "groups[1]: expected an object, found an array"}};
  for (const auto& [line, message] : faults)
    EXPECT_EQ(error_with(9, line), "fold: plan.json:9: " + std::string(message)) << line;
  EXPECT_EQ(error_with(8, ""), "fold: plan.json:7: block 0 is missing: it is neither removed nor in a group");
  EXPECT_EQ(error_with(11, R"(    {"blocks":[6],"values":"wmean"},)"),
            "fold: plan.json:11: the wmean of block 6 alone is the block: leave \"values\" out");
}

TEST(FoldPlanFile, RefusesGroupsThatAreNotRunsInOrder) {
  std::string text = text_with(8, R"(    {"blocks":[0,2],"parent":0,"values":"own"}, {"blocks":[1]},)");
  text.replace(text.find(kLines[8]), kLines[8].size(), "");
  EXPECT_EQ(error_of(text), "fold: plan.json:8: group 0 is not consecutive: block 1 stands between 0 and 2");
  text = text_with(8, R"(    {"blocks":[1]}, {"blocks":[2]},)");
  text.replace(text.find(kLines[8]), kLines[8].size(), R"(    {"blocks":[0]},)");
  EXPECT_EQ(error_of(text), "fold: plan.json:8: block 1 is out of order: block 0 comes first");
  text = text_with(9, R"(    {"blocks":[1]}, {"blocks":[2,4,3],"values":"mean"},)");
  text.replace(text.find(kLines[9]), kLines[9].size(), "");
  EXPECT_EQ(error_of(text), "fold: plan.json:9: group 2 is not consecutive: block 3 stands between 2 and 4");
  text = text_with(10, R"(    {"blocks":[4,3],"values":"mean"},)");
  EXPECT_EQ(error_of(text), "fold: plan.json:10: block 4 is out of order: block 3 comes first");
}

TEST(FoldPlanFile, NamesLineAndBlockOfWhatIsWrongWithRemoval) {
  EXPECT_EQ(error_with(5, R"(  "removed": [5,5],)"), "fold: plan.json:5: block 5 is removed twice");
  EXPECT_EQ(error_with(5, R"(  "removed": [5,2],)"), "fold: plan.json:5: removed block 2 stands behind 5: they ascend");
  EXPECT_EQ(error_with(5, R"(  "removed": [5,9],)"),
            "fold: plan.json:5: there is no block 9: the plan is of 9 layers, 0 to 8");
  EXPECT_EQ(error_with(5, R"(  "removed": [0,1,2,3,4,5,6,7,8],)"), "fold: plan.json:5: every block is removed");
  EXPECT_EQ(error_with(5, R"(  "removed": [],)"),
            "fold: plan.json:7: block 5 is missing: it is neither removed nor in a group");
  EXPECT_EQ(error_with(6, R"(  "removed_halves": [{"block":3,"part":"mlp"}],)"),
            "fold: plan.json:10: blocks 3 and 4 cannot share: one of them lost its mlp");
  EXPECT_EQ(error_with(6, R"(  "removed_halves": [{"block":3,"part":"attention"},{"block":3,"part":"mlp"}],)"),
            "fold: plan.json:6: block 3 lost both halves: it belongs to \"removed\"");
  EXPECT_EQ(error_with(6, R"(  "removed_halves": [{"block":3,"part":"mlp"},{"block":3,"part":"mlp"}],)"),
            "fold: plan.json:6: the mlp of block 3 is removed twice");
  EXPECT_EQ(error_with(6, R"(  "removed_halves": [{"block":4,"part":"mlp"},{"block":3,"part":"mlp"}],)"),
            "fold: plan.json:6: block 3 stands behind 4: they ascend");
  EXPECT_EQ(error_with(6, R"(  "removed_halves": [{"block":5,"part":"mlp"}],)"),
            "fold: plan.json:6: block 5 is removed as a whole: its mlp does not count again");
  EXPECT_EQ(error_with(6, R"(  "removed_halves": [{"block":3,"part":"norm"}],)"),
            "fold: plan.json:6: removed_halves[0]: \"norm\" is none of \"attention\", \"mlp\"");
}

TEST(FoldPlanFile, RefusesWhatIsUnknownOrMissing) {
  EXPECT_EQ(error_with(14, R"(  "child": {"level":"lora","rank":4}, "childs": 1,)"),
            "fold: plan.json:14: unknown key \"childs\"");
  EXPECT_EQ(error_with(14, ""), "fold: plan.json:1: the key \"child\" is missing");
  EXPECT_EQ(error_with(14, R"(  "child": {"level":"lora","rank":0},)"),
            "fold: plan.json:14: a child of level \"lora\" has rank 1 to 1024, not 0");
  EXPECT_EQ(error_with(14, R"(  "child": {"level":"norm","rank":4},)"),
            "fold: plan.json:14: a child of level \"norm\" has rank 0, not 4");
  EXPECT_EQ(error_with(14, R"(  "child": {"level":"own","rank":4},)"),
            "fold: plan.json:14: child: \"own\" is none of \"tie\", \"norm\", \"scale\", \"lora\", \"mos\"");
  EXPECT_EQ(error_with(4, R"(  "base": {"layers":9},)"), "fold: plan.json:4: base: the key \"model_type\" is missing");
  EXPECT_EQ(error_with(4, R"(  "base": {"layers":0,"model_type":"llama"},)"),
            "fold: plan.json:4: 0 layers; a plan is of 1 to 65536");
  EXPECT_EQ(error_with(2, R"(  "format": "tessera sharing",)"),
            "fold: plan.json:2: format \"tessera sharing\", expected \"tessera fold plan\"");
  EXPECT_EQ(error_with(3, R"(  "version": 2,)"), "fold: plan.json:3: version 2; this program reads 1");
  EXPECT_EQ(error_with(16, R"(    "rho": 1, "rho": 2)"),
            "fold: plan.json: the key \"rho\" appears twice in one object");
  EXPECT_EQ(error_of("[1]"), "fold: plan.json:1: expected an object, found an array");
  EXPECT_EQ(error_of("{\n\"format\": \"tessera fold plan\"}"), "fold: plan.json:1: the key \"version\" is missing");
  EXPECT_NE(error_of(text_with(8, R"(    {"blocks":[0})")).find("fold: plan.json: not valid JSON"), std::string::npos);
  EXPECT_NE(error_of(text_with(16, "    \"rho\": \"\xff\"")).find("not valid JSON"), std::string::npos);  // no UTF-8
}

TEST(FoldPlanFile, IsRefusedForAnotherBase) {
  const FoldBase base{.fingerprint = "9f31", .layers = 9, .model_type = "llama"};
  EXPECT_EQ(error_of(text_with(), base), "none");
  FoldBase other = base;
  other.layers = 12;
  EXPECT_EQ(error_of(text_with(), other), "fold: plan.json:4: the plan is of 9 layers, the model has 12");
  other = base;
  other.model_type = "qwen2";
  EXPECT_EQ(error_of(text_with(), other), "fold: plan.json:4: the plan is of a \"llama\", the model is a \"qwen2\"");
  other = base;
  other.fingerprint = "77aa";
  EXPECT_EQ(error_of(text_with(), other),
            "fold: plan.json:4: the plan was made for another model: fingerprint 9f31, this one has 77aa");
  other.fingerprint = "";
  EXPECT_EQ(error_of(text_with(), other), "none");
}

TEST(FoldPlanFile, DamagedAnywhereIsAnErrorOfTheUser) {
  const std::string text = text_with();
  std::mt19937_64 random(17);
  constexpr std::string_view kBytes = "0123456789[]{},:\"\\ab\n \xff";
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = text;
    for (int edits = 0; edits < 1 + i % 3; ++edits) {
      const size_t at = random() % damaged.size();
      if (random() % 2)
        damaged[at] = kBytes[random() % kBytes.size()];
      else
        damaged.erase(at, 1 + random() % 4);
    }
    try {
      const FoldPlan plan = parse_fold_plan(damaged, "plan.json");
      EXPECT_NO_THROW(fold_plan_text(plan)) << damaged;
    } catch (const UserError& error) {
      EXPECT_EQ(error.where().rfind("fold: plan.json", 0), 0u) << error.what();
    }
  }
}

}  // namespace
}  // namespace tessera
