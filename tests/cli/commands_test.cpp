// What the program answers: options, checks, the short jobs, faults in a recipe.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ContainsRegex;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

class Trainer : public test::Workbench {
 protected:
  std::string answer(const Words& words) { return expect_done(trainer(words)).out; }
  std::string fault(const Words& words) {
    const test::Ended ended = expect_exit(2, trainer(words));
    EXPECT_EQ(ended.out, "");
    return ended.err;
  }
};

TEST_F(Trainer, TellsItsVersionAndItsOptions) {
  EXPECT_THAT(answer({"--version"}), MatchesRegex("trainer [0-9]+[.][0-9]+[.][0-9]+\n"));
  const std::string help = answer({"--help"});
  for (const char* option :
       {"recipe", "overrides", "--check", "--json", "--show-batch", "--explain", "--list", "--quiet", "--version"})
    EXPECT_THAT(help, HasSubstr(option));
  EXPECT_THAT(help, HasSubstr("jobs, adapters, sharing, optimizers, estimators"));
}

TEST_F(Trainer, ListsWhatARecipeCanName) {
  EXPECT_THAT(answer({"--list", "jobs"}), AllOf(HasSubstr("train "), HasSubstr("prepare "), HasSubstr("evaluate "),
                                                HasSubstr("generate "), HasSubstr("export "), HasSubstr("replay ")));
  EXPECT_THAT(answer({"--list", "adapters"}), AllOf(HasSubstr("lora "), HasSubstr("mos ")));
  EXPECT_THAT(answer({"--list", "sharing"}), AllOf(HasSubstr("none "), HasSubstr("rps ")));
  EXPECT_THAT(answer({"--list", "optimizers"}), AllOf(HasSubstr("adamw "), HasSubstr("sgd ")));
  EXPECT_THAT(answer({"--list", "estimators"}), AllOf(HasSubstr("backprop "), HasSubstr("spsa ")));
  EXPECT_THAT(answer({"--list", "objectives"}), AllOf(HasSubstr("tokens "), HasSubstr("choices ")));
  EXPECT_THAT(answer({"--list", "metrics"}), HasSubstr("exact_match ("));
  EXPECT_THAT(answer({"--list", "transports"}), AllOf(HasSubstr("mpi "), HasSubstr("file ")));
  EXPECT_THAT(answer({"--list", "models"}), HasSubstr("llama "));
  EXPECT_THAT(answer({"--list", "devices"}), AllOf(StartsWith("cpu\n"), HasSubstr("far ")));
  EXPECT_EQ(fault({"--list", "colours"}),
            "command line: --list \"colours\" is not known\n  kinds: jobs, adapters, sharing, optimizers, estimators, "
            "objectives, metrics, transports, models, devices\n");
}

TEST_F(Trainer, ExplainsKeysWithoutARecipe) {
  EXPECT_THAT(answer({"--explain", "train.batch"}),
              AllOf(StartsWith("train.batch\n  rows of one optimizer step, over all ranks; of one probe with spsa\n"),
                    HasSubstr("allowed: 1 to 16777216\n"), HasSubstr("default: 16\n")));
  EXPECT_THAT(answer({"--explain", "adapter"}),
              AllOf(HasSubstr("adapter.shards\n"), HasSubstr("adapter.private_rank\n"), Not(HasSubstr("train.batch"))));
  EXPECT_THAT(answer({"mos.toml", "--explain", "all"}), AllOf(HasSubstr("run.dir\n"), HasSubstr("generate.top_k\n")));
  EXPECT_EQ(fault({"--explain", "trian.batch"}),
            "command line: no key is called \"trian.batch\"\n  did you mean \"train.batch\"?\n");
}

TEST_F(Trainer, RefusesAnUnknownKeyWithItsPlaceAndTheKnownOnes) {
  test::write_file(*this / "wrong.toml", test::read_file(*this / "mos.toml") + "shards_per_vectr = 4\n");
  EXPECT_THAT(
      fault({"wrong.toml"}),
      MatchesRegex(
          "wrong.toml:[0-9]+:1: unknown key \"shards_per_vectr\" in .adapter.\n"
          "  known keys: method, equivalent_rank, rank, shards, private_rank, alpha, dropout, targets, draw, scale, index_seed, [a-z_, ]+\n"
          "  did you mean \"shards\"\\?\n"));
}

TEST_F(Trainer, ReportsAllFaultsOfARecipeTogether) {
  const std::string faults =
      fault({"mos.toml", "train.batch=0", "train.stepz=3", "optimizer.name=adamm", "data.train=absent.jsonl"});
  EXPECT_THAT(faults, AllOf(HasSubstr("train.batch"), HasSubstr("\"stepz\""), HasSubstr("did you mean \"steps\"?"),
                            HasSubstr("adamm"), HasSubstr("absent.jsonl\" does not exist")));
}

TEST_F(Trainer, RefusesWhatIsNoCommand) {
  EXPECT_EQ(fault({}), "command line: no recipe is given\n  trainer RECIPE [section.key=value ...]; trainer --help\n");
  EXPECT_THAT(fault({"--bogus"}), AllOf(StartsWith("command line: "), HasSubstr("--bogus")));
  EXPECT_THAT(fault({"absent.toml"}), StartsWith("absent.toml: this recipe does not exist\n"));
  EXPECT_EQ(fault({"mos.toml", "mistake"}),
            "command line: \"mistake\" is not an override\n  write section.key=value, for example train.steps=100\n");
  test::write_file(*this / "torn.toml", "job = \"train\"\n[model\n");
  EXPECT_THAT(fault({"torn.toml"}), StartsWith("torn.toml:2:"));
}

TEST_F(Trainer, SaysAFaultOnceUnderRanks) {
  TESSERA_NEEDS_MPI();
  for (const Words& words : {Words{"mos.toml", "train.bach=3"}, Words{"--bogus"},
                             Words{"mos.toml", "model.path=train.jsonl", "model.init=pretrained"}}) {
    const test::Ended ended = expect_exit(2, ranks(3, words));
    EXPECT_EQ(test::occurrences(ended.err, "command line: "), 1) << ended.err;
  }
  EXPECT_EQ(test::occurrences(expect_done(ranks(3, {"--version"})).out, "trainer "), 1);
  EXPECT_EQ(test::occurrences(expect_done(ranks(3, {"mos.toml", "--check"})).out, "the recipe is in order"), 1);
}

TEST_F(Trainer, ChecksARecipeWithoutTouchingAnything) {
  EXPECT_THAT(answer({"mos.toml", "--check"}),
              AllOf(HasSubstr("trained 2048, frozen 26784"), HasSubstr("8.2 kB a step and rank: gradients"),
                    HasSubstr("device           cpu\n"), EndsWith("the recipe is in order\n")));
  EXPECT_FALSE(fs::exists(*this / "runs"));
  EXPECT_FALSE(fs::exists(*this / ".cache"));
}

TEST_F(Trainer, ChecksWithOneJsonObject) {
  const std::string text = answer({"mos.toml", "--check", "--json"});
  EXPECT_EQ(test::occurrences(text, "\n"), 1);
  const Json plan = Json::parse(text, "plan");
  const Json& parameters = plan.at("parameters");
  EXPECT_EQ(parameters.at("trained").as_integer(), 2048);
  EXPECT_EQ(parameters.at("frozen").as_integer(), 26784);
  EXPECT_EQ(parameters.at("virtual").as_integer(), 26784 + 3072);  // as a LoRA of rank 3
  EXPECT_EQ(plan.at("wire_bytes_per_step").as_integer(), 4 * 2048);
  EXPECT_EQ(plan.at("device").as_string(), "cpu") << "of run.device = \"auto\"";
  EXPECT_GT(plan.at("bytes_per_rank").as_integer(), 12 * 2048);
  const auto rates = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"mos.toml", "--check", "--json", "optimizer.lr=0.001",
                                      "optimizer.warmup_steps=2"};
    words.insert(words.end(), more.begin(), more.end());
    return Json::parse(answer(words), "plan").at("learning_rate");
  };
  EXPECT_EQ(rates({"train.steps=4"}).at("first").as_number(), 0);
  EXPECT_NEAR(rates({"train.steps=4"}).at("highest").as_number(), 0.001, 1e-9);
  EXPECT_NEAR(rates({"train.steps=4"}).at("last").as_number(), 0.0005, 1e-9);
  test::write_file(*this / "epochs.toml", "[model]\npath = \"base\"\ninit = \"random\"\ntokenizer = \"" +
                                              (test::source_dir() / "recipes/world/tokenizer").string() +
                                              "\"\n[data]\ntrain = \"train.jsonl\"\n[train]\nepochs = 1\n");
  const Json epochs = Json::parse(answer({"epochs.toml", "--check", "--json"}), "plan");
  EXPECT_GT(epochs.at("learning_rate").at("highest").as_number(), 0);
  EXPECT_FALSE(epochs.at("learning_rate").find("last"));
  EXPECT_FALSE(Json::parse(answer({"mos.toml", "job=prepare", "--check", "--json"}), "plan").find("learning_rate"));
}

TEST_F(Trainer, RefusesAPlanThatTheMachineCannotHold) {
  std::string config = test::read_file(*this / "base/config.json");
  const std::string layers = "\"num_hidden_layers\": ";
  config.replace(config.find(layers), layers.size() + 1, layers + "500");
  test::write_file(*this / "base/config.json", config);
  const std::string text = fault({"mos.toml", "--check", "train.sequence_length=100000"});
  EXPECT_THAT(text, AllOf(HasSubstr("this run needs"), HasSubstr("on this machine (1 ranks), which has"),
                          HasSubstr("lower train.sequence_length")));
}

TEST_F(Trainer, ShowsTheFirstBatchWithScoredTextInBrackets) {
  const std::string text = answer({"mos.toml", "--show-batch", "train.batch=2"});
  EXPECT_THAT(text, HasSubstr("the first batch: 2 rows of 64 tokens"));
  EXPECT_THAT(text, ContainsRegex("-- row 0\n +0[.][.][0-9]+ +<s> copy [a-z ]+ =[[][a-z ]+ </s>[]]\n"));
}

TEST_F(Trainer, TakesBareWordsAndListsAsOverrides) {
  EXPECT_THAT(
      answer({"full.toml", "adapter.method=lora", "adapter.rank=1", "adapter.targets=q_proj,v_proj", "--check"}),
      HasSubstr("trained 224,"));
  EXPECT_THAT(fault({"full.toml", "adapter.method=lora", "adapter.targets=[q_prj]"}),
              AllOf(HasSubstr("q_prj"), HasSubstr("q_proj")));
}

TEST_F(Trainer, PreparesDataOnce) {
  const std::string first = answer({"mos.toml", "job=prepare"});
  EXPECT_THAT(first, AllOf(HasSubstr("300 documents"), ContainsRegex("train: [0-9]+ rows of 64 tokens")));
  EXPECT_THAT(first, HasSubstr("prepared"));
  EXPECT_THAT(answer({"mos.toml", "job=prepare"}), Not(HasSubstr("prepared")));
  EXPECT_FALSE(fs::exists(*this / "runs/mos"));
}

TEST_F(Trainer, WarnsOfWordsThatTheTokenizerDoesNotKnow) {
  test::write_file(*this / "english.jsonl", "{\"prompt\": \"what is this\", \"completion\": \"no idea\"}\n");
  EXPECT_THAT(answer({"mos.toml", "train.steps=1", "data.train=english.jsonl"}),
              HasSubstr("of the data's tokens are <unk>"));
  EXPECT_THAT(answer({"mos.toml", "train.steps=1", "run.dir=known"}), Not(HasSubstr("<unk>")));
}

TEST_F(Trainer, ContinuesPrompts) {
  const std::string text = answer(
      {"full.toml", "job=generate", "generate.prompts=[\"copy da di =\"]", "generate.max_new_tokens=4", "run.dir=run"});
  EXPECT_THAT(text, StartsWith("copy da di ="));
  const Json line = Json::parse(test::read_file(*this / "run/samples.jsonl"), "samples");
  EXPECT_EQ(line.at("prompt").as_string(), "copy da di =");
  EXPECT_EQ(line.at("finish").as_string(), "max_new_tokens");
  EXPECT_THAT(answer({"full.toml", "job=generate", "generate.limit=3", "generate.max_new_tokens=4"}),
              ContainsRegex("completions right: 0 of 3 [(]0.0 %[)]\n"));
  EXPECT_TRUE(fs::exists(*this / "runs/full/samples.jsonl"));
}

TEST_F(Trainer, SaysWhatOfAModelOfTheUsersIsNotRead) {
  answer({"full.toml", "job=export", "run.dir=mine"});
  fs::remove(*this / "mine/model/tessera.json");
  test::write_file(*this / "english.jsonl", "{\"prompt\": \"what is this\", \"completion\": \"no idea\"}\n");
  const Words words = {"lora.toml", "model.path=mine/model", "train.steps=1", "data.train=english.jsonl",
                       "run.dir=run"};
  EXPECT_THAT(
      answer(words),
      AllOf(ContainsRegex("the tokenizer of model.tokenizer, \"[^\"]*world/tokenizer\", does not know these words; "
                          "model.tokenizer=\"\" takes the one of model.path"),
            ContainsRegex("note: model.init is \"random\": the weights in [^ ]*mine/model are not read")));
  EXPECT_THAT(answer(joined(words, {"model.tokenizer=", "model.init=pretrained", "run.dir=other"})),
              AllOf(HasSubstr("the model's tokenizer does not know these words"), Not(HasSubstr("are not read"))));
}

/// Its export.merged = false is the run's, not the job's.
TEST_F(Trainer, ExportsByTheRecipeThatARunStored) {
  answer({"mos.toml", "train.steps=1", "run.dir=run"});
  const Words stored = {"run/recipe.toml", "job=export"};
  EXPECT_THAT(fault(joined(stored, {"export.merged=false"})), HasSubstr("there is nothing to export"));
  answer(joined(stored, {"export.peft=true"}));
  EXPECT_FALSE(fs::exists(*this / "run/model")) << "another form was asked for in its place";
  answer(stored);
  EXPECT_TRUE(fs::exists(*this / "run/model/model.safetensors"));
}

TEST_F(Trainer, IsSilentWhenAsked) {
  const test::Ended ended = expect_done(trainer({"mos.toml", "train.steps=2", "--quiet"}));
  EXPECT_EQ(ended.out, "");
  EXPECT_EQ(ended.err, "");
  EXPECT_THAT(test::read_file(*this / "runs/mos/log.txt"), HasSubstr("step 2/2"));
}

TEST_F(Trainer, WritesPlainLinesWhereThereIsNoTerminal) {
  EXPECT_THAT(answer({"mos.toml", "train.steps=20", "log.every=5", "run.dir=run"}),
              AllOf(HasSubstr("\nstep 5/20  loss "), Not(HasSubstr("\x1b")), Not(HasSubstr("\r"))));
  EXPECT_THAT(answer({"mos.toml", "train.steps=20", "log.every=5", "run.dir=live", "log.progress=live"}),
              HasSubstr("\r\x1b[K"));
}

TEST_F(Trainer, StopsAtTheStepThatBreaksAndNamesThePlace) {
  const test::Ended ended =
      expect_exit(2, trainer({"mos.toml", "run.dir=run", "optimizer.lr=1e30", "checkpoint.every=1"}));
  EXPECT_THAT(
      ended.err,
      ContainsRegex(
          "^step [0-9]+: the loss or the gradient is not finite: [a-z]+ -?(nan|inf) of pool mos[.][a-z_.]+[.]pool_[ab] row [0-9]+, read by layers "));
  EXPECT_EQ(test::occurrences(ended.err, "not finite"), 1);
}

TEST_F(Trainer, CachesBesideTheRunsFolderUnlessToldOtherwise) {
  auto command = trainer({"mos.toml", "train.steps=1", "run.dir=a/run"});
  expect_done(command);
  EXPECT_TRUE(fs::exists(*this / "a" / ".cache"));
}

TEST_F(Trainer, WritesNothingOutsideItsFolders) {
  fs::create_directories(*this / "elsewhere");
  auto command = trainer({(*this / "mos.toml").string(), "train.steps=2", "run.dir=a/run", "data.cache=b"});
  command.folder = *this / "elsewhere";
  expect_done(command);
  std::vector<std::string> there;
  for (const auto& entry : fs::directory_iterator(command.folder)) there.push_back(entry.path().filename().string());
  EXPECT_THAT(there, testing::UnorderedElementsAre("a", "b"));
  EXPECT_FALSE(fs::exists(*this / ".cache"));
}

TEST_F(Trainer, GoesOnWhenTheReaderOfItsOutputLeaves) {
  test::Command command = trainer({});
  command.arguments = {
      "bash",          "-c",         "set -o pipefail; \"$@\" | head -n 1", "bash", command.arguments[0], "mos.toml",
      "train.steps=3", "log.every=1"};
  expect_done(command);
  EXPECT_EQ(metrics("runs/mos").back().at("event").as_string(), "done");
}

TEST_F(Trainer, KeepsItsWordsOutOfItsFilesWhenAStreamIsClosed) {
  test::Command command = trainer({});
  command.arguments = {"bash",
                       "-c",
                       "exec \"$@\" <&- >&- 2>&-",
                       "bash",
                       command.arguments[0],
                       "mos.toml",
                       "train.steps=3",
                       "checkpoint.every=1"};
  expect_done(command);
  EXPECT_EQ(fs::file_size(*this / "runs/mos/.lock"), 0u);
  EXPECT_EQ(metrics("runs/mos").back().at("event").as_string(), "done");
}

TEST_F(Trainer, TellsThatAPathCannotBeFollowed) {
  fs::create_symlink("loop", *this / "loop");
  EXPECT_THAT(fault({"mos.toml", "data.train=loop"}), AllOf(HasSubstr("/loop: "), HasSubstr("symbolic links")));
}

TEST_F(Trainer, RefusesATokenizerThatKnowsMoreThanTheModel) {
  std::string config = test::read_file(*this / "base/config.json");
  config.replace(config.find("256"), 3, "100");
  test::write_file(*this / "base/config.json", config);
  EXPECT_THAT(fault({"mos.toml", "job=generate"}), HasSubstr("the model's vocabulary has ids from 0 to 99"));
  for (const char* job : {"train", "evaluate"})
    EXPECT_THAT(
        fault({"mos.toml", std::string("job=") + job}),
        ContainsRegex("tokenizer.json: the token \"[a-z_<>/0-9]+\" has the id [0-9]+, but the model's vocab_size "
                      "is 100\n  tokenizer and model do not belong together"));
}

TEST_F(Trainer, NamesTheDamagedWeightOfTheBaseModel) {
  expect_done(trainer({"full.toml", "job=export", "run.dir=run"}));
  std::string bytes = test::read_file(*this / "run/model/model.safetensors");
  bytes.replace(bytes.size() - 4, 4, "\xff\xff\xff\xff");  // a NaN
  test::write_file(*this / "run/model/model.safetensors", bytes);
  fs::remove(*this / "run/model/tessera.json");  // which would tell that the file was altered
  for (const Words& words : {Words{"full.toml"}, Words{"mos.toml"}, Words{"full.toml", "job=evaluate"}}) {
    Words all = words;
    for (const char* more : {"model.path=run/model", "model.init=pretrained"}) all.push_back(more);
    EXPECT_THAT(
        expect_exit(2, trainer(all)).err,
        ContainsRegex("the loss is not finite: element [0-9]+ of \".+\" is -?nan in .*run/model/model.safetensors"
                      "\n  the base model is damaged"));
  }
}

TEST_F(Trainer, RefusesToExportOverTheBaseModelBeforeItTrains) {
  fs::rename(*this / "base", *this / "model");
  EXPECT_THAT(fault({"full.toml", "model.path=model", "run.dir=."}), HasSubstr("would overwrite the base model"));
  EXPECT_FALSE(fs::exists(*this / "checkpoints"));
}

TEST_F(Trainer, RefusesKeysThatContradictEachOther) {
  EXPECT_THAT(fault({"mos.toml", "adapter.targets=[]"}), HasSubstr("adapter.targets names no weights"));
  EXPECT_THAT(fault({"full.toml", "job=generate", "adapter.load=base"}),
              HasSubstr("adapter.load is given, but adapter.method is \"none\""));
  for (const char* output : {"../out.jsonl", "/out.jsonl", "", "checkpoints", "metrics.jsonl"})
    EXPECT_THAT(fault({"mos.toml", "job=generate", std::string("generate.output=") + output}),
                HasSubstr("give a plain file name that ends in .jsonl"));
  EXPECT_EQ(fault({"mos.toml", "train.steps=many"}),
            "command line: train.steps is \"many\", expected a whole number\n  allowed: at least 0\n");
}

TEST_F(Trainer, SaysThatRowsAreLongerThanWhatTheModelKnows) {
  EXPECT_THAT(answer({"mos.toml", "--check", "train.sequence_length=4096"}),
              HasSubstr("note: rows of 4096 tokens are longer than the 2048 positions"));
  EXPECT_THAT(answer({"mos.toml", "--check"}), Not(HasSubstr("note: ")));
}

TEST_F(Trainer, TakesJsonOnlyWithCheck) {
  EXPECT_THAT(fault({"mos.toml", "--json"}), HasSubstr("--json requires --check"));
}

}  // namespace
}  // namespace tessera
