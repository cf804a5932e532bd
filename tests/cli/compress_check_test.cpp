// What job = "compress" tells and refuses before it computes anything, and what --check tells of it.

#include <gmock/gmock.h>

#include "cli/compress_runs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::Compress;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// What --check prints: notes of the recipe go to the other stream.
class CompressCheck : public Compress {
 protected:
  std::string check(const Words& words) const { return expect_done(trainer(joined(words, {"--check"}))).out; }
  /// Refused before a stage is run, by the job and by --check with one text.
  void expect_refused(const Words& more, const testing::Matcher<const std::string&>& told) const {
    const std::string by_job = fault(job("fresh", more));
    EXPECT_THAT(by_job, told);
    EXPECT_EQ(fault(job("fresh", joined(more, {"--check"}))), by_job);
    EXPECT_FALSE(fs::exists(*this / "fresh/compress/journal.jsonl"));
  }
};

TEST_F(CompressCheck, ATargetThatNoPlanMeetsIsRefusedBeforeAnyStage) {
  const std::string told = "command line: fold.target: fold: a target of 0.2 cannot be met: ";
  for (const Words& more : std::vector<Words>{{}, {"fold.selector=bi"}, {"fold.selector=run", "fold.replace=mse"}})
    expect_refused(joined(more, {"fold.target=0.2"}), AllOf(HasSubstr(told), HasSubstr(" is the least with")));
  expect_refused({"fold.target=0.2", "fold.gates=sublayer"}, AllOf(HasSubstr(told), HasSubstr("more than 0.")));
  expect_refused({"fold.groups=9"}, HasSubstr("command line: fold.groups: fold: "));
  check(job("fresh", {"fold.target=0.9"}));
  check(job("fresh", {"fold.target=0.9", "fold.gates=sublayer"}));
}

TEST_F(CompressCheck, RowsThatTheDataHaveNotAreRefused) {
  expect_refused({"fold.calibration_rows=100000"}, HasSubstr("fold: 100000 calibration rows are asked for, data."));
}

TEST_F(CompressCheck, APlanOfAnotherModelIsRefused) {
  const auto write = [&](const std::string& base, const std::string& groups =
                                                      "[{\"blocks\": [0]}, {\"blocks\": [2, 3, "
                                                      "4], \"parent\": 3, \"values\": \"own\"}, "
                                                      "{\"blocks\": [5]}]") {
    test::write_file(*this / "my.json", "{\"format\": \"tessera fold plan\", \"version\": 1, \"base\": {" + base +
                                            ", \"model_type\": \"llama\"},\n \"removed\": [1], \"removed_halves\": [], "
                                            "\"groups\": " +
                                            groups + ", \"child\": {\"level\": \"norm\", \"rank\": 0}}");
  };
  expect_done(trainer({"full.toml", "job=export", "run.dir=dense"}));  // a model of files, which has a fingerprint
  const Words plain = {"lora.toml",        "job=compress",          "run.dir=run",       "model.path=dense/model",
                       "data.cache=cache", "model.init=pretrained", "fold.plan=my.json", "fold.calibration_rows=6",
                       "fold.cure=none"};
  write("\"layers\": 6, \"fingerprint\": \"9f31\"");
  EXPECT_THAT(fault(joined(plain, {"--check"})), HasSubstr("the plan was made for another model: fingerprint 9f31"));
  // The number of layers is told in front of what follows from it.
  write("\"layers\": 8", "[{\"blocks\": [0]}]");
  EXPECT_THAT(fault(joined(plain, {"--check"})), HasSubstr("the plan is of 8 layers, the model has 6"));
  write("\"layers\": 6");
  expect_done(trainer(plain));
  write("\"layers\": 6, \"fingerprint\": \"\"");
  EXPECT_THAT(fault(plain),
              testing::ContainsRegex("fold.plan \\(\".*my.json\"\\) was [0-9a-f]{8}\\.\\., now [0-9a-f]{8}\\.\\."));
}

TEST_F(CompressCheck, APlanThatIsTypedStandsAboveTheRecipesKeys) {
  test::write_file(*this / "my.json",
                   R"({"format": "tessera fold plan", "version": 1, "base": {"layers": 6, "model_type": "llama"},
 "removed": [1], "removed_halves": [], "groups": [{"blocks": [0]}, {"blocks": [2, 3, 4], "parent": 3, "values": "own"},
 {"blocks": [5]}], "child": {"level": "scale", "rank": 0}})");
  test::write_file(*this / "fold.toml", test::read_file(*this / "lora.toml") +
                                            "[fold]\nremove = 0.33\ngroup = 3\nselector = \"run\"\nreplace = \"mse\"\n"
                                            "calibration_rows = 6\ncure = \"none\"\n");
  const Words words = {"fold.toml", "job=compress", "run.dir=run", "data.cache=cache"};
  const test::Ended ended = expect_done(trainer(joined(words, {"fold.plan=my.json"})));
  EXPECT_THAT(ended.err, AllOf(HasSubstr("fold.plan takes the place of "), HasSubstr("fold.remove"),
                               HasSubstr("fold.group"), HasSubstr("fold.selector"), HasSubstr("fold.replace")));
  EXPECT_EQ(json("run", "share.json").at("virtual_layers").as_integer(), 5);
  EXPECT_THAT(test::read_file(*this / "run/recipe.toml"),
              AllOf(HasSubstr("my.json"), Not(HasSubstr("remove = 0.33")), Not(HasSubstr("selector = \"run\""))));
  EXPECT_EQ(test::occurrences(expect_done(trainer({"run/recipe.toml"})).out, "done before"), 2);
  EXPECT_THAT(fault(joined(words, {"fold.plan=my.json", "fold.remove=0.5"})),
              HasSubstr("fold.remove is given beside fold.plan"));
}

TEST_F(CompressCheck, TellsWhatTheRunHasDone) {
  expect_done(trainer(job("run", {"fold.until=gates"})));
  EXPECT_THAT(check(job("run")), HasSubstr("\ndone already: probe, gates\n"));
  fs::remove(*this / "run/compress/gates.json");
  const std::string journal = file("run", "journal.jsonl");
  test::write_file(*this / "run/compress/journal.jsonl", "{\"stage\":\n" + journal);
  EXPECT_THAT(check(job("run")),
              AllOf(HasSubstr("\ndone already: probe; gates goes on from run/compress/gates-state.json\n"),
                    HasSubstr("run/compress/journal.jsonl:1: this line of the journal is damaged")));
  EXPECT_THAT(check(job("fresh")), Not(HasSubstr("done already")));
}

TEST_F(CompressCheck, TellsThatThereIsNoHeldOutData) {
  EXPECT_THAT(check(job("fresh", {"data.eval="})), HasSubstr("note: there is no held-out data"));
  EXPECT_THAT(check(job("fresh")), Not(HasSubstr("held-out data")));
}

TEST_F(CompressCheck, OfHalvesTheSizesAreAbout) {
  const std::string out = check(job("fresh", {"fold.gates=sublayer"}));
  EXPECT_THAT(out,
              AllOf(HasSubstr("\nfolded    about 4 layers of 3 blocks, about "), HasSubstr("\nnote: which halves go")));
  EXPECT_THAT(check(job("fresh")), Not(HasSubstr("about 4 layers")));
}

TEST_F(CompressCheck, AStageThatTheRecipeHasNotIsNoneToEndWith) {
  EXPECT_THAT(fault(job("fresh", {"fold.until=gates", "fold.selector=bi"})),
              HasSubstr("command line: fold.until is \"gates\", and this recipe has no such stage\n"
                        "  its stages are probe, remove, group, share, report\n"));
}

TEST_F(CompressCheck, NumbersAreToldAsTheyWereTypedAndFarNamesAreNotMeant) {
  EXPECT_THAT(fault(job("fresh", {"fold.remove=0.99"})), HasSubstr("fold.remove is 0.99, expected a number"));
  EXPECT_THAT(fault(job("fresh", {"adapter.method=foo"})), Not(HasSubstr("did you mean")));
  EXPECT_THAT(fault(job("fresh", {"adapter.method=mo"})), HasSubstr("did you mean \"mos\"?"));
}

TEST_F(CompressCheck, TheRunTellsWhatBeginsWhatIsTakenOverAndWhyNot) {
  const test::Ended first = expect_done(trainer(job("run", {"fold.until=remove"})));
  EXPECT_THAT(first.out, AllOf(HasSubstr("stage gates begins\n"), HasSubstr("stage gates: done\n"),
                               HasSubstr("gates: losses of the calibration rows: original ")));
  const test::Ended second = expect_done(trainer(job("other", {"fold.gate_lr=0.01", "fold.reuse=run"})));
  EXPECT_THAT(second.out,
              AllOf(HasSubstr("stage probe: reused\n"),
                    HasSubstr("stage gates is not taken over from run: fold.gate_lr was 0.02, now 0.01\n"),
                    HasSubstr("stage remove is not taken over from run: files of earlier stages are others\n"),
                    HasSubstr("stage group is not taken over from run: it is not done there\n"),
                    HasSubstr("perplexity of the calibration rows, original "), HasSubstr("report: perplexities of "),
                    HasSubstr("eval.jsonl (data.eval)\n")));
}

}  // namespace
}  // namespace tessera
