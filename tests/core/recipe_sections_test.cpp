// Sections within sections, arrays of tables, the checks of sections, and what a field says of a run that goes on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/error.h"
#include "core/recipe.h"
#include "support/error_text.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct EvaluateConfig {
  int64_t every = 0;
  void visit(Fields& v) { v("every", every, at_least(0), "steps between", OnResume::free); }
};

struct TasksConfig {
  int64_t rows = 10;
  std::vector<std::string> names;
  void visit(Fields& v) {
    v("rows", rows, at_least(1), "of a task");
    v("names", names, one_of({"boolq", "piqa"}), "tasks");
  }
};

struct SourceConfig {
  fs::path path;
  double weight = 1;
  int64_t rows = 0;
  void visit(Fields& v) {
    v("path", path, anything(), "a file", OnResume::same_data);
    v("weight", weight, in_f32(above(0)), "its share");
    v("rows", rows, at_least(0), "the first rows only; 0: all");
  }
  void check(SectionCheck& own) const {
    const std::set<std::string> said = own.said();
    if (path.empty()) own.fault("path", own.has("path") ? "path is empty" : "this source names no file", "give path");
    if (said.count("weight") && said.count("rows")) own.fault("rows", "weight and rows are both given");
  }
};

struct All {
  EvaluateConfig evaluate;
  TasksConfig tasks;
  std::vector<SourceConfig> sources;
};

Recipe read(const std::string& toml, All& all, const std::vector<std::string>& overrides = {},
            const fs::path& folder = "/recipes") {
  Recipe recipe = Recipe::from_text(toml, "a.toml", overrides, folder);
  recipe.read("evaluate", all.evaluate);
  recipe.read("evaluate.tasks", all.tasks);
  recipe.read_list("data.sources", all.sources);
  return recipe;
}

All values(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  All all;
  read(toml, all, overrides).finish();
  return all;
}

std::string faults(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  return test::error_text([&] { values(toml, overrides); });
}

constexpr const char* kTwoSources =
    "[evaluate]\nevery = 5\n[evaluate.tasks]\nrows = 7\nnames = [\"piqa\"]\n"
    "[[data.sources]]\npath = \"x.jsonl\"\nweight = 0.25\n"
    "[[data.sources]]\npath = \"/y.jsonl\"\n";

TEST(RecipeSections, ASectionMayLieInAnother) {
  for (const char* text : {"[evaluate]\nevery = 5\n[evaluate.tasks]\nrows = 7\n", "[evaluate.tasks]\nrows = 7\n",
                           "[evaluate]\ntasks.rows = 7\n", "[evaluate]\ntasks = {rows = 7}\n"}) {
    EXPECT_EQ(values(text).tasks.rows, 7) << text;
    EXPECT_TRUE(values(text).tasks.names.empty());
  }
  EXPECT_EQ(values("[evaluate]\nevery = 5\n[evaluate.tasks]\nrows = 7\n").evaluate.every, 5);
}

TEST(RecipeSections, AnArrayOfTablesGivesAnElementForEachInTheirOrder) {
  const All all = values(kTwoSources);
  ASSERT_EQ(all.sources.size(), 2u);
  EXPECT_EQ(all.sources[0].path, "/recipes/x.jsonl");
  EXPECT_EQ(all.sources[0].weight, 0.25);
  EXPECT_EQ(all.sources[1].path, "/y.jsonl");
  EXPECT_EQ(all.sources[1].weight, 1.0);
  EXPECT_TRUE(values("").sources.empty());
  EXPECT_EQ(values("[data]\nsources = [{path = \"a\"}, {path = \"b\"}, {path = \"c\"}]\n").sources.size(), 3u);
}

TEST(RecipeSections, UnknownNamesInsideTellTheirPlaceAndTheNearestName) {
  EXPECT_EQ(faults("[evaluate.tasks]\nrow = 7\n"),
            "a.toml:2:1: unknown key \"row\" in [evaluate.tasks]\n  known keys: rows, names\n  did you mean \"rows\"?");
  EXPECT_EQ(faults("[evaluate.task]\nrows = 7\n"),
            "a.toml:1:11: unknown section \"evaluate.task\"\n"
            "  known sections: evaluate.tasks\n  did you mean \"evaluate.tasks\"?");
  EXPECT_EQ(faults("[[data.sources]]\npath = \"x\"\n[[data.sources]]\npath = \"y\"\nweigth = 1\n"),
            "a.toml:5:1: unknown key \"weigth\" in [data.sources[1]]\n"
            "  known keys: path, weight, rows\n  did you mean \"weight\"?");
  EXPECT_EQ(faults("[evaluate.every]\nx = 1\n"),
            "a.toml:1:1: evaluate.every is x = 1, expected a whole number\n  allowed: at least 0");
  EXPECT_THAT(faults("[data]\nsource = 3\n"), HasSubstr("unknown key \"source\" in [data]"));
}

TEST(RecipeSections, AValueThatIsNotAllowedIsToldWithItsElement) {
  EXPECT_EQ(faults("[[data.sources]]\npath = \"x\"\n[[data.sources]]\npath = \"y\"\nweight = 0\n"),
            "a.toml:5:10: data.sources[1].weight is 0, expected a number\n  allowed: more than 0");
  EXPECT_EQ(faults("[evaluate.tasks]\nnames = [\"bool\"]\n"),
            "a.toml:2:9: evaluate.tasks.names is [ 'bool' ], expected a list of texts\n"
            "  allowed: one of: \"boolq\" \"piqa\"");
}

TEST(RecipeSections, WhatIsNoArrayOfTablesIsNotTakenForOne) {
  const char* write = "a.toml:1:7: data.sources is an array of tables\n  write [[data.sources]] above the keys of each";
  EXPECT_EQ(faults("[data.sources]\npath = \"x\"\n"), write);
  EXPECT_THAT(faults("[data]\nsources = [\"x\", \"y\"]\n"), HasSubstr("data.sources is an array of tables"));
  EXPECT_EQ(faults("[[evaluate.tasks]]\nrows = 3\n"),
            "a.toml:1:12: [[evaluate.tasks]] begins one of several tables, and evaluate.tasks is a single one\n"
            "  write [evaluate.tasks]");
  EXPECT_THAT(faults("data = 3\n"), HasSubstr("data is a section, expected a table of keys"));
}

TEST(RecipeSections, TheCommandLineReachesInside) {
  EXPECT_EQ(values(kTwoSources, {"evaluate.tasks.rows=9"}).tasks.rows, 9);
  EXPECT_EQ(values("", {"evaluate.tasks.rows=9"}).tasks.rows, 9);
  const All table = values(kTwoSources, {"evaluate.tasks={rows=9, names=[\"boolq\"]}", "evaluate.every=2"});
  EXPECT_EQ(table.tasks.rows, 9);
  EXPECT_THAT(table.tasks.names, testing::ElementsAre("boolq"));
  EXPECT_EQ(table.evaluate.every, 2);
  EXPECT_THAT(values("", {"evaluate.tasks.names=piqa,boolq"}).tasks.names, testing::ElementsAre("piqa", "boolq"));
  const All element = values(kTwoSources, {"data.sources[1].weight=3", "data.sources[0].path=z"});
  EXPECT_EQ(element.sources[0].path, fs::current_path() / "z");
  EXPECT_EQ(element.sources[0].weight, 0.25);
  EXPECT_EQ(element.sources[1].weight, 3.0);
}

TEST(RecipeSections, TheCommandLineDoesNotMakeTablesOfAnArray) {
  EXPECT_EQ(faults(kTwoSources, {"data.sources[2].weight=3"}),
            "command line: data.sources[2]: the recipe has 2 [[data.sources]], numbered from 0");
  EXPECT_EQ(faults(kTwoSources, {"data.sources=[{path=\"x\"}]"}),
            "command line: data.sources is an array of tables, which the recipe holds\n"
            "  write data.sources[0].KEY=VALUE for a key of the first");
  EXPECT_EQ(faults(kTwoSources, {"data.sources[0]=3"}),
            "command line: data.sources[0] is a table of keys\n  write data.sources[0].KEY=VALUE");
  EXPECT_THAT(faults(kTwoSources, {"data.sources[x].weight=3"}), HasSubstr("unknown section \"data.sources[x]\""));
  EXPECT_EQ(faults(kTwoSources, {"data.sources[0].weigth=3"}),
            "command line: data.sources[0].weigth: unknown key \"weigth\" in [data.sources[0]]\n"
            "  known keys: path, weight, rows\n  did you mean \"weight\"?");
  EXPECT_EQ(faults(kTwoSources, {"data.sources[0].weight=-1"}),
            "command line: data.sources[0].weight is -1, expected a number\n  allowed: more than 0");
  EXPECT_EQ(faults("", {"evaluate.tasks=3", "evaluate.tasks.rows=3"}),
            "command line: \"evaluate.tasks\" is given as a key and as a section\n"
            "  leave out evaluate.tasks=..., or every evaluate.tasks.KEY=...");
}

TEST(RecipeSections, AStoredRecipeReadBackGivesTheSameValuesAndTheSameText) {
  All first, second;
  const Recipe recipe = read(kTwoSources, first, {"data.sources[1].rows=4"});
  const std::string text = recipe.resolved();
  EXPECT_EQ(text,
            "\n[evaluate]\nevery = 5\n\n[evaluate.tasks]\nrows = 7\nnames = [\"piqa\"]\n"
            "\n[[data.sources]]\npath = \"/recipes/x.jsonl\"\nweight = 0.25\nrows = 0\n"
            "\n[[data.sources]]\npath = \"/y.jsonl\"\nweight = 1.0\nrows = 4\n");
  Recipe again = read(text, second, {}, "/elsewhere");
  again.finish();
  EXPECT_EQ(again.resolved(), text);
  EXPECT_EQ(again.flat(), recipe.flat());
}

TEST(RecipeSections, WhatResumeComparesKnowsEachElementAndHowManyThereAre) {
  All two, none;
  const auto flat = read(kTwoSources, two).flat();
  EXPECT_THAT(flat, testing::Contains(testing::Pair("evaluate.tasks.rows", "7")));
  EXPECT_THAT(flat, testing::Contains(testing::Pair("data.sources[1].path", "\"/y.jsonl\"")));
  EXPECT_THAT(flat, testing::Contains(testing::Pair("data.sources", "2 tables")));
  EXPECT_THAT(read("", none).flat(), testing::Contains(testing::Pair("data.sources", "0 tables")));
}

TEST(RecipeSections, AFieldSaysWhatItIsToARunThatGoesOn) {
  All all;
  const Recipe recipe = read(kTwoSources, all);
  EXPECT_EQ(recipe.on_resume("evaluate.every"), OnResume::free);
  EXPECT_EQ(recipe.on_resume("data.sources[1].path"), OnResume::same_data);
  EXPECT_EQ(recipe.on_resume("evaluate.tasks.rows"), OnResume::same);
  EXPECT_EQ(recipe.on_resume("data.sources"), OnResume::same);
}

TEST(RecipeSections, KeysOfAnArrayAreExplainedOnceWhateverTheRecipeHolds) {
  All two, none;
  const auto explained = read("", none).explain();
  EXPECT_THAT(explained,
              testing::Contains(testing::Pair("data.sources[].weight",
                                              "its share\n  kind: a number\n  allowed: more than 0\n  default: 1.0")));
  EXPECT_EQ(read(kTwoSources, two).explain(), explained);
}

TEST(RecipeSections, ASectionChecksItselfAndFaultsPointAtTheElement) {
  EXPECT_EQ(faults("[[data.sources]]\npath = \"x\"\n\n[[data.sources]]\nweight = 1\n"),
            "a.toml:4:1: this source names no file\n  give path");
  EXPECT_EQ(faults("[[data.sources]]\npath = \"x\"\nweight = 2\nrows = 3\n"),
            "a.toml:4:1: weight and rows are both given");
  EXPECT_EQ(faults("[[data.sources]]\npath = \"x\"\nweight = 1\nrows = 3\n"),
            test::kNothingThrown);  // given, and says nothing
  EXPECT_EQ(faults(kTwoSources, {"data.sources[0].path="}),
            "command line: data.sources[0].path: path is empty\n  give path");
}

TEST(RecipeSections, ANumberThatF32CannotHoldIsAFault) {
  EXPECT_EQ(faults("[[data.sources]]\npath = \"x\"\nweight = 1e-60\n"),
            "a.toml:3:1: data.sources[0].weight is 1e-60, beyond the range of f32\n"
            "  it is reckoned with in f32, which goes from 1.1754944e-38 to 3.4028235e+38");
}

/// A section whose keys are the user's own names.
struct FoldersConfig {
  std::map<std::string, fs::path> folders;
  void visit(Fields& v) {
    for (auto& [name, folder] : folders) v(name, folder, anything(), "a folder", OnResume::free);
  }
};

TEST(RecipeSections, MayHaveKeysThatTheUserNames) {
  All all;
  FoldersConfig named;
  Recipe recipe = read("[evaluate]\nevery = 3\n[evaluate.folders]\nlaw = \"a\"\ntax-2 = \"b\"\n", all,
                       {"evaluate.folders.law=c", "evaluate.folders.more=d"});
  EXPECT_EQ(recipe.given_keys("evaluate.folders"), (std::set<std::string>{"law", "more", "tax-2"}));
  EXPECT_TRUE(recipe.given_keys("nowhere").empty());
  for (const std::string& name : recipe.given_keys("evaluate.folders")) named.folders[name];
  recipe.read("evaluate.folders", named);
  recipe.finish();
  EXPECT_EQ(named.folders.at("tax-2"), "/recipes/b");
  EXPECT_EQ(named.folders.at("law"), fs::current_path() / "c");
  EXPECT_THAT(recipe.resolved(), HasSubstr("[evaluate.folders]\nlaw = "));
}

}  // namespace
}  // namespace tessera
