#include "core/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "core/error.h"
#include "support/error_text.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::Pair;

struct TopConfig {
  std::string job = "train";
  void visit(Fields& v) { v("job", job, one_of({"train", "prepare", "evaluate"}), "what to do"); }
};

struct TrainConfig {
  int64_t steps = 100;
  double lr = 1e-3, dropout = 0;
  bool shuffle = true;
  std::string note;
  std::optional<int64_t> epochs;
  std::optional<double> clip;
  void visit(Fields& v) {
    v("steps", steps, at_least(1), "optimizer steps");
    v("lr", lr, above(0), "peak learning rate");
    v("dropout", dropout, in_range(0, 0.9), "share of inputs dropped");
    v("shuffle", shuffle, anything(), "whether to shuffle");
    v("note", note, anything(), "any text");
    v("epochs", epochs, at_least(1), "passes over the data");
    v("clip", clip, above(0), "largest gradient norm");
  }
};

struct FilesConfig {
  fs::path train, cache = ".cache";
  std::vector<std::string> targets = {"q_proj"};
  void visit(Fields& v) {
    v("train", train, anything(), "training data");
    v("cache", cache, anything(), "prepared data");
    v("targets", targets, one_of({"q_proj", "k_proj", "v_proj"}), "adapted matrices");
  }
};

struct All {
  TopConfig top;
  TrainConfig train;
  FilesConfig files;
};

Recipe read(const std::string& toml, All& all, const std::vector<std::string>& overrides = {},
            const fs::path& folder = ".") {
  Recipe recipe = Recipe::from_text(toml, "recipes/a.toml", overrides, folder);
  recipe.read("", all.top);
  recipe.read("train", all.train);
  recipe.read("files", all.files);
  return recipe;
}

All values(const std::string& toml, const std::vector<std::string>& overrides = {}, const fs::path& folder = ".") {
  All all;
  read(toml, all, overrides, folder).finish();
  return all;
}

std::string faults(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  return test::error_text([&] { values(toml, overrides); });
}

TEST(Recipe, SetsWhatIsGivenAndKeepsDefaults) {
  const All all = values(
      "job = \"prepare\"\n[train]\nsteps = 7\nlr = 1\nclip = 0.5\n[files]\ntargets = [\"k_proj\", \"v_proj\"]\n");
  EXPECT_EQ(all.top.job, "prepare");
  EXPECT_EQ(all.train.steps, 7);
  EXPECT_EQ(all.train.lr, 1.0);
  EXPECT_EQ(all.train.dropout, 0.0);
  EXPECT_TRUE(all.train.shuffle);
  EXPECT_EQ(all.train.epochs, std::nullopt);
  EXPECT_EQ(all.train.clip, 0.5);
  EXPECT_THAT(all.files.targets, ElementsAre("k_proj", "v_proj"));
}

TEST(Recipe, NamesPlaceAndNearestNameOfAnUnknownKey) {
  EXPECT_EQ(faults("[train]\nsteps = 7\n  stepz = 8\n"),
            "recipes/a.toml:3:3: unknown key \"stepz\" in [train]\n"
            "  known keys: steps, lr, dropout, shuffle, note, epochs, clip\n"
            "  did you mean \"steps\"?");
  EXPECT_EQ(faults("jobs = \"train\"\n"),
            "recipes/a.toml:1:1: unknown key \"jobs\"\n  known keys: job\n  did you mean \"job\"?");
  EXPECT_EQ(faults("[train]\nqqqqqqqq = 1\n"),
            "recipes/a.toml:2:1: unknown key \"qqqqqqqq\" in [train]\n"
            "  known keys: steps, lr, dropout, shuffle, note, epochs, clip");
}

TEST(Recipe, NamesPlaceAndNearestNameOfAnUnknownSection) {
  EXPECT_EQ(faults("\n[tran]\nsteps = 1\n"),
            "recipes/a.toml:2:2: unknown section \"tran\"\n  known sections: train, files\n  did you mean \"train\"?");
}

TEST(Recipe, SaysWhatWasFoundAndWhatIsAllowed) {
  EXPECT_EQ(faults("[train]\nsteps = 0\n"),
            "recipes/a.toml:2:9: train.steps is 0, expected a whole number\n  allowed: at least 1");
  EXPECT_EQ(faults("[train]\nsteps = 1.5\n"),
            "recipes/a.toml:2:9: train.steps is 1.5, expected a whole number\n  allowed: at least 1");
  EXPECT_EQ(faults("[train]\nlr = 0.0\n"),
            "recipes/a.toml:2:6: train.lr is 0.0, expected a number\n  allowed: more than 0");
  EXPECT_EQ(faults("[train]\nlr = inf\n"),
            "recipes/a.toml:2:6: train.lr is inf, expected a number\n  allowed: more than 0");
  EXPECT_EQ(faults("[train]\nlr = nan\n"),
            "recipes/a.toml:2:6: train.lr is nan, expected a number\n  allowed: more than 0");
  EXPECT_EQ(faults("[train]\ndropout = 1\n"),
            "recipes/a.toml:2:11: train.dropout is 1, expected a number\n  allowed: 0 to 0.9");
  EXPECT_EQ(faults("[train]\nshuffle = \"yes\"\n"),
            "recipes/a.toml:2:11: train.shuffle is \"yes\", expected true or false");
  EXPECT_EQ(faults("[train]\nnote = 3\n"), "recipes/a.toml:2:8: train.note is 3, expected text in quotes");
  EXPECT_EQ(faults("[train]\nepochs = 0\n"),
            "recipes/a.toml:2:10: train.epochs is 0, expected a whole number\n  allowed: at least 1");
  EXPECT_EQ(
      faults("job = \"trian\"\n"),
      "recipes/a.toml:1:7: job is \"trian\", expected one of: \"train\" \"prepare\" \"evaluate\"\n  did you mean \"train\"?");
  EXPECT_EQ(faults("[files]\ntargets = [\"q_proj\", 3]\n"),
            "recipes/a.toml:2:11: files.targets is [ 'q_proj', 3 ], expected a list of texts\n"
            "  allowed: one of: \"q_proj\" \"k_proj\" \"v_proj\"");
}

TEST(Recipe, ReportsAllFaultsTogether) {
  EXPECT_EQ(faults("job = \"sing\"\n[train]\nsteps = -1\nlrr = 1\n[data]\nx = 1\n", {"train.clip=0"}),
            "recipes/a.toml:1:7: job is \"sing\", expected one of: \"train\" \"prepare\" \"evaluate\"\n"
            "recipes/a.toml:3:9: train.steps is -1, expected a whole number\n  allowed: at least 1\n"
            "command line: train.clip is 0, expected a number\n  allowed: more than 0\n"
            "recipes/a.toml:5:2: unknown section \"data\"\n  known sections: train, files\n"
            "recipes/a.toml:4:1: unknown key \"lrr\" in [train]\n"
            "  known keys: steps, lr, dropout, shuffle, note, epochs, clip\n  did you mean \"lr\"?");
}

TEST(Recipe, AFaultLeavesTheFieldAsItWas) {
  All all;
  Recipe recipe = read("[train]\nsteps = 0\n", all);
  EXPECT_EQ(all.train.steps, 100);
  EXPECT_THROW(recipe.finish(), UserError);
}

TEST(Recipe, CrossFieldFaultsPointAtTheKeyTheSectionOrTheFile) {
  const auto fault_at = [](const std::string& toml, const std::vector<std::string>& overrides) {
    All all;
    Recipe recipe = read(toml, all, overrides);
    recipe.fault("train", "epochs", "epochs and steps exclude each other", "give one of them");
    return test::error_text([&] { recipe.finish(); });
  };
  const std::string rest = ": epochs and steps exclude each other\n  give one of them";
  EXPECT_EQ(fault_at("[train]\nsteps = 1\nepochs = 2\n", {}), "recipes/a.toml:3:1" + rest);
  EXPECT_EQ(fault_at("\n[train]\nsteps = 1\n", {}), "recipes/a.toml:2:2" + rest);
  EXPECT_EQ(fault_at("", {}), "recipes/a.toml" + rest);
  EXPECT_EQ(fault_at("[train]\nepochs = 2\n", {"train.epochs=3"}), "command line: train.epochs" + rest);
}

TEST(Recipe, NamesThePlaceOfTextThatIsNoToml) {
  try {
    Recipe::from_text("[train]\nsteps = = 3\n", "recipes/a.toml");
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_EQ(error.where(), "recipes/a.toml:2:9");
    EXPECT_THAT(error.message(), testing::StartsWith("not valid TOML: "));
  }
}

TEST(Recipe, AFileThatCannotBeReadIsNamed) {
  const test::TemporaryFolder folder;
  for (const fs::path& path : {folder / "none.toml", folder.path()}) try {
      Recipe::load(path);
      FAIL() << "accepted";
    } catch (const UserError& error) {
      EXPECT_EQ(error.where(), path.string());
    }
}

TEST(Recipe, OverridesWinOverTheFile) {
  const All all = values("[train]\nsteps = 7\n", {"train.steps=8", "train.shuffle=false", "train.lr=2e-4",
                                                  "train.epochs=3", "job=prepare", "train.steps=9"});
  EXPECT_EQ(all.train.steps, 9);
  EXPECT_FALSE(all.train.shuffle);
  EXPECT_EQ(all.train.lr, 2e-4);
  EXPECT_EQ(all.train.epochs, 3);
  EXPECT_EQ(all.top.job, "prepare");
}

TEST(Recipe, OverridesOfTextsMayBeBareOrQuoted) {
  EXPECT_EQ(values("", {"train.note=two words, 'and' \"quotes\" = #3"}).train.note, "two words, 'and' \"quotes\" = #3");
  EXPECT_EQ(values("", {"train.note=\"a\\tb\""}).train.note, "a\tb");
  EXPECT_EQ(values("", {"train.note=2024"}).train.note, "2024");
  EXPECT_EQ(values("", {"train.note=true"}).train.note, "true");
  EXPECT_EQ(values("", {"train.note=2024-01-02"}).train.note, "2024-01-02");
  EXPECT_EQ(values("", {"train.note=1\nx = 2"}).train.note, "1\nx = 2");
  EXPECT_EQ(values("", {"train.note=a\x7f\\"}).train.note, "a\x7f\\");
  EXPECT_EQ(values("[train]\nnote = \"a\"\n", {"train.note="}).train.note, "");
}

TEST(Recipe, OverridesOfListsMayBeBareOrToml) {
  for (const char* text : {"[\"q_proj\", \"v_proj\"]", "q_proj,v_proj", "[q_proj, v_proj]"})
    EXPECT_THAT(values("", {std::string("files.targets=") + text}).files.targets, ElementsAre("q_proj", "v_proj"))
        << text;
  EXPECT_THAT(values("", {"files.targets=k_proj"}).files.targets, ElementsAre("k_proj"));
  EXPECT_THAT(values("", {"files.targets=[]"}).files.targets, ElementsAre());
  EXPECT_EQ(faults("", {"files.targets=q_proj,z"}),
            "command line: files.targets is [ 'q_proj', 'z' ], expected a list of texts\n"
            "  allowed: one of: \"q_proj\" \"k_proj\" \"v_proj\"");
}

TEST(Recipe, FaultsOfOverridesNameTheCommandLine) {
  EXPECT_EQ(faults("", {"train.steps=many"}),
            "command line: train.steps is \"many\", expected a whole number\n  allowed: at least 1");
  EXPECT_EQ(faults("", {"train.stepz=1"}),
            "command line: train.stepz: unknown key \"stepz\" in [train]\n"
            "  known keys: steps, lr, dropout, shuffle, note, epochs, clip\n"
            "  did you mean \"steps\"?");
  for (const char* text : {"train.steps", "=3", ".steps=3", "train.=3", "a..c=3", "a.b.=3"})
    EXPECT_EQ(
        faults("", {text}),
        fmt::format("command line: \"{}\" is not an override\n  write section.key=value, for example train.steps=100",
                    text));
}

TEST(Recipe, RefusesAKeyOfMoreNamesThanAnySectionHas) {
  std::string deep = "a";
  for (int i = 0; i < 60000; ++i) deep += ".a";
  EXPECT_THAT(faults("", {deep + "=1"}), testing::HasSubstr("is not an override"));
}

TEST(Recipe, WhatIsGivenAsAKeyAndAsASectionIsRefusedInEitherOrder) {
  const std::string fault =
      "command line: \"train.steps\" is given as a key and as a section\n"
      "  leave out train.steps=..., or every train.steps.KEY=...";
  EXPECT_EQ(faults("", {"train.steps=3", "train.steps.y=3"}), fault);
  EXPECT_EQ(faults("", {"train.steps.y=3", "train.steps=3"}), fault);
  EXPECT_EQ(faults("", {"train={steps={y=3}}", "train.lr=1", "train.steps=3"}), fault);
  EXPECT_THAT(faults("", {"train.steps=3", "train=4"}), testing::HasSubstr("\"train\" is given as a key and as a"));
  EXPECT_EQ(values("", {"train={steps=3}", "train={lr=0.5}", "train.steps=4"}).train.steps, 4);
}

TEST(Recipe, RefusesASectionWithoutAName) {
  EXPECT_THAT(faults("[\"\"]\nsteps = 3\n"), testing::HasSubstr("unknown section \"\""));
  EXPECT_THAT(faults("[\"\"]\n"), testing::HasSubstr("unknown section \"\""));
}

TEST(Recipe, PathsOfTheFileAreRelativeToItAndThoseOfTheCommandLineToTheWorkingDirectory) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder / "recipes");
  test::write_file(folder / "recipes/b.toml", "[files]\ntrain = \"../data/a.jsonl\"\n");
  FilesConfig given, overridden, absolute;
  Recipe recipe = Recipe::load(folder / "recipes/b.toml");
  recipe.read("files", given);
  recipe.finish();
  EXPECT_EQ(given.train, folder / "data/a.jsonl");
  EXPECT_EQ(given.cache, ".cache");
  EXPECT_EQ(recipe.name(), "b");
  EXPECT_EQ(recipe.folder(), folder / "recipes");
  Recipe::load(folder / "recipes/b.toml", {"files.train=data/b.jsonl"}).read("files", overridden);
  EXPECT_EQ(overridden.train, fs::current_path() / "data/b.jsonl");
  Recipe::load(folder / "recipes/b.toml", {"files.train=/x/../y"}).read("files", absolute);
  EXPECT_EQ(absolute.train, "/y");
}

TEST(Recipe, AnEmptyPathStaysEmpty) { EXPECT_TRUE(values("[files]\ncache = \"\"\n").files.cache.empty()); }

TEST(Recipe, TheResolvedRecipeReadFromAnywhereGivesTheSameValues) {
  All first;
  Recipe recipe = read(
      "[train]\nlr = 0.1\nnote = \"\"\"a \"b\" \\\\\n\\u007f\\u0001 é\"\"\"\nclip = 3\n[files]\ntrain = \"d.jsonl\"\n",
      first, {}, "/some/where");
  recipe.finish();
  All second;
  Recipe again = read(recipe.resolved(), second, {}, "/else/where");
  again.finish();
  EXPECT_EQ(again.resolved(), recipe.resolved());
  EXPECT_EQ(second.train.lr, 0.1);
  EXPECT_EQ(second.train.note, "a \"b\" \\\n\x7f\x01 é");
  EXPECT_EQ(second.train.clip, 3.0);
  EXPECT_EQ(second.train.epochs, std::nullopt);
  EXPECT_EQ(second.files.train, "/some/where/d.jsonl");
  EXPECT_EQ(second.files.cache, fs::current_path() / ".cache");
  EXPECT_THAT(second.files.targets, ElementsAre("q_proj"));
}

TEST(Recipe, TheResolvedRecipeSpellsOutDefaultsAndLeavesAbsentFieldsOut) {
  All all;
  const Recipe recipe = read("", all, {"files.cache=/c"});
  EXPECT_EQ(recipe.resolved(),
            "job = \"train\"\n"
            "\n[train]\nsteps = 100\nlr = 0.001\ndropout = 0.0\nshuffle = true\nnote = \"\"\n"
            "\n[files]\ntrain = \"\"\ncache = \"/c\"\ntargets = [\"q_proj\"]\n");
}

TEST(Recipe, NumbersSurviveTheResolvedRecipeBitForBit) {
  for (const double value : {1e-300, 0.1, 1.0 / 3, 1e22, 123456789.0, 5e-324}) {
    All first, second;
    first.train.lr = value;
    const Recipe recipe = read("", first);
    read(recipe.resolved(), second).finish();
    EXPECT_EQ(second.train.lr, value);
  }
  All first, second;
  first.train.steps = std::numeric_limits<int64_t>::max();
  read(read("", first).resolved(), second).finish();
  EXPECT_EQ(second.train.steps, std::numeric_limits<int64_t>::max());
}

TEST(Recipe, FlatListsEveryFieldReadWithItsValue) {
  TrainConfig train;
  Recipe recipe = Recipe::from_text("[train]\nsteps = 5\n", "a.toml");
  recipe.read("train", train);
  EXPECT_THAT(recipe.flat(), ElementsAre(Pair("train.steps", "5"), Pair("train.lr", "0.001"),
                                         Pair("train.dropout", "0.0"), Pair("train.shuffle", "true"),
                                         Pair("train.note", "\"\""), Pair("train.epochs", ""), Pair("train.clip", "")));
}

TEST(Recipe, TellsGivenFromDefaulted) {
  All all;
  const Recipe recipe = read("[train]\nsteps = 100\n", all, {"train.lr=1"});
  EXPECT_TRUE(recipe.has("train", "steps"));
  EXPECT_TRUE(recipe.has("train", "lr"));
  EXPECT_FALSE(recipe.has("train", "dropout"));
  EXPECT_FALSE(recipe.has("", "job"));
  EXPECT_EQ(recipe.where("train", "steps"), "recipes/a.toml:2:1");
  EXPECT_EQ(recipe.where("train", "lr"), "command line: train.lr");
}

TEST(Recipe, ExplainsHelpKindRangeAndDefaultWhateverIsGiven) {
  TrainConfig train;
  Recipe recipe = Recipe::from_text("[train]\nsteps = 5\n", "a.toml");
  recipe.read("train", train);
  EXPECT_THAT(
      recipe.explain(),
      testing::AllOf(
          testing::Contains(
              Pair("train.steps", "optimizer steps\n  kind: a whole number\n  allowed: at least 1\n  default: 100")),
          testing::Contains(Pair("train.shuffle", "whether to shuffle\n  kind: true or false\n  default: true")),
          testing::Contains(Pair(
              "train.clip", "largest gradient norm\n  kind: a number\n  allowed: more than 0\n  default: not set"))));
}

TEST(Recipe, AnOverrideMayBeAWholeSection) {
  const All all = values("[train]\nsteps = 7\nlr = 1\n", {"train={steps=3, note=\"a b\", epochs=4}", "train.epochs=5"});
  EXPECT_EQ(all.train.steps, 3);
  EXPECT_EQ(all.train.lr, 1);
  EXPECT_EQ(all.train.note, "a b");
  EXPECT_EQ(all.train.epochs, 5);
  EXPECT_THAT(values("", {"files={targets=[\"k_proj\", \"v_proj\"]}"}).files.targets, ElementsAre("k_proj", "v_proj"));
  EXPECT_EQ(faults("", {"train={steps=0}"}),
            "command line: train.steps is 0, expected a whole number\n  allowed: at least 1");
  EXPECT_THAT(faults("", {"train={stepz=1}"}), testing::HasSubstr("unknown key \"stepz\" in [train]"));
  EXPECT_THAT(faults("", {"trian={steps=1}"}), testing::HasSubstr("unknown section \"trian\""));
}

TEST(Recipe, OverridesOfTheWrongShapeAreFaults) {
  for (const char* text : {"train.steps={a=1}", "train.note={}", "train.steps=[[1]]", "train={steps={a=1}}", "job={}",
                           "job={a=1}", "job.a=1", "train=3", "train=[]", "files.train={a=\"b\"}"})
    EXPECT_NE(faults("", {text}), "") << text;
  EXPECT_NE(faults("", {"train.steps=3", "train=5"}), "");
  for (const char* text : {"train=3", "train={steps=3, steps=4}", "train={steps="})
    EXPECT_THAT(faults("", {text}),
                testing::HasSubstr("train is a section, expected a table of keys\n  write train.KEY=VALUE"))
        << text;
}

TEST(Recipe, AKeyOfTheWrongShapeIsOneFault) {
  for (const char* text : {"job={a=1}", "job.a=1", "train.steps={a=1}"})
    EXPECT_EQ(faults("", {text}).find("unknown"), std::string::npos) << faults("", {text});
  EXPECT_THAT(faults("job.a = 1\n"), testing::Not(testing::HasSubstr("unknown")));
  EXPECT_EQ(faults("[[train]]\nsteps = 1\n"),
            "recipes/a.toml:1:3: [[train]] begins one of several tables, and train is a single one\n  write [train]");
}

TEST(Recipe, WhatAShellWouldExpandIsNoPathHere) {
  EXPECT_EQ(faults("[files]\ntrain = \"~/data.jsonl\"\n"),
            "recipes/a.toml:2:9: files.train is \"~/data.jsonl\": \"~\" and \"$\" are not expanded here\n"
            "  write the whole path; a folder of that very name is \"./~\"");
  EXPECT_THAT(faults("", {"files.cache=$HOME/cache"}),
              testing::StartsWith("command line: files.cache is \"$HOME/cache\": \"~\" and \"$\" are not expanded"));
  EXPECT_EQ(values("[files]\ntrain = \"./~\"\n", {}, "/a").files.train, fs::path("/a/~"));
}

TEST(Recipe, APipeInPlaceOfAFileIsNotWaitedFor) {
  const test::TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "a.toml").c_str(), 0600), 0);
  try {
    Recipe::load(folder / "a.toml");
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_EQ(error.message(), "this recipe is a pipe or a device and no file");
  }
}

}  // namespace
}  // namespace tessera
