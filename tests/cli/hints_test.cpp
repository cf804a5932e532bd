// Every hint can be followed: a command that is refused, what the hint says to do, and that this works.
// Hints of runs that stop, diverge or go on are walked where those are tested (resume_test.cpp, spsa_test.cpp).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

struct Walk {
  std::string name;
  std::vector<Words> before;      // commands that set the scene
  Words refused;                  // ends with exit code 2
  std::vector<std::string> says;  // parts of what it prints
  std::vector<Words> followed;    // what the hint says, one command behind the other
};

void PrintTo(const Walk& walk, std::ostream* out) { *out << walk.name; }

class Hints : public test::Workbench, public testing::WithParamInterface<Walk> {
 protected:
  Hints() {
    std::string reviews, short_texts;
    for (int i = 0; i < 8; ++i) {
      const std::string word = i % 2 == 0 ? "ba de" : "mi su ga";
      reviews += "{\"prompt\": \"copy " + word + " =\", \"label\": " + std::to_string(i % 2) + "}\n";
      short_texts += "{\"prompt\": \"copy ba de =\", \"completion\": \"ba\"}\n";
    }
    test::write_file(*this / "reviews.jsonl", reviews);
    test::write_file(*this / "short.jsonl", short_texts);
  }
};

const std::string kWords = "data.label_words=[\" ba\",\" de\"]";

Words labelled(Words words) {
  for (const char* word : {"data.train=reviews.jsonl", "data.eval=reviews.jsonl"}) words.emplace_back(word);
  return words;
}

TEST_P(Hints, CanBeFollowed) {
  for (const Words& command : GetParam().before) expect_done(trainer(command));
  const test::Ended refused = expect_exit(2, trainer(GetParam().refused));
  for (const std::string& part : GetParam().says) EXPECT_THAT(refused.err, testing::HasSubstr(part));
  for (const Words& command : GetParam().followed) expect_done(trainer(command));
}

const Walk kWalks[] = {
    {"ChoicesNeedLabelWords",
     {},
     labelled({"spsa.toml", "train.steps=1", "train.objective=choices"}),
     {"data.label_words is not set", "label_words = [\" terrible\", \" great\"]"},
     {labelled({"spsa.toml", "train.steps=1", "train.objective=choices", kWords})}},
    {"ChoicesTakeForwardPassesOnly",
     {},
     labelled({"lora.toml", "train.steps=1", "train.objective=choices", kWords, "adapter.dropout=0"}),
     {"set train.estimator = \"spsa\", or train.objective = \"tokens\""},
     {labelled({"lora.toml", "train.steps=1", "train.objective=choices", kWords, "adapter.dropout=0",
                "train.estimator=spsa"}),
      labelled(
          {"lora.toml", "train.steps=1", "train.objective=tokens", kWords, "adapter.dropout=0", "run.dir=second"})}},
    {"SpsaBoundsVotesAndNotGradients",
     {},
     {"spsa.toml", "train.steps=1", "train.clip=0.5"},
     {"spsa.clip bounds votes"},
     {{"spsa.toml", "train.steps=1", "spsa.clip=4"}}},
    {"NormalisedVotesTakeOneSide",
     {},
     {"spsa.toml", "train.steps=1", "spsa.normalise=true"},
     {"set spsa.sides = \"one\""},
     {{"spsa.toml", "train.steps=1", "spsa.normalise=true", "spsa.sides=one"}}},
    {"NormalisedVotesTakeTwoProbes",
     {},
     {"spsa.toml", "train.steps=1", "spsa.normalise=true", "spsa.sides=one", "spsa.probes=1"},
     {"set spsa.probes to at least 2"},
     {{"spsa.toml", "train.steps=1", "spsa.normalise=true", "spsa.sides=one", "spsa.probes=2"}}},
    {"AVoteHolds63FloatProbes",
     {},
     {"spsa.toml", "train.steps=1", "spsa.votes=float32", "spsa.probes=64"},
     {"that is 63 probes of float32"},
     {{"spsa.toml", "train.steps=1", "spsa.votes=float32", "spsa.probes=63"}}},
    {"APoolOfDirectionsKeepsSums",
     {},
     {"spsa.toml", "train.steps=1", "spsa.directions=pool", "optimizer.name=adamw"},
     {"set optimizer.name = \"sgd\", optimizer.momentum = 0 and optimizer.weight_decay = 0"},
     {{"spsa.toml", "train.steps=1", "spsa.directions=pool", "optimizer.name=sgd", "optimizer.momentum=0",
       "optimizer.weight_decay=0"}}},
    {"AnEpsThatF32Holds",
     {},
     {"spsa.toml", "train.steps=1", "spsa.eps=1e-60"},
     {"try 1e-3 to 1e-2"},
     {{"spsa.toml", "train.steps=1", "spsa.eps=1e-3"}}},
    {"DecayBelowAHalf",
     {},
     {"spsa.toml", "train.steps=1", "optimizer.lr=1", "optimizer.weight_decay=0.9"},
     {"lower optimizer.lr or optimizer.weight_decay"},
     {{"spsa.toml", "train.steps=1", "optimizer.lr=1", "optimizer.weight_decay=0.4"}}},
    {"MachinesAreNumberedFromZero",
     {},
     {"spsa.toml", "train.steps=1", "spsa.transport=file", "spsa.machine=1"},
     {"machines are numbered 0 .. 0"},
     {{"spsa.toml", "train.steps=1", "spsa.transport=file", "spsa.machine=0"}}},
    {"AnSpsaRunBranchesInPlaceOfStartingFromAFile",
     {{"spsa.toml", "train.steps=10", "run.dir=first"}},
     {"spsa.toml", "train.steps=10", "run.resume=first/checkpoints/step-00000010.safetensors"},
     {"replay.branch starts a new run from any round"},
     {{"spsa.toml", "job=replay", "run.dir=first", "replay.round=5", "replay.branch=branch"},
      {"spsa.toml", "train.steps=10", "run.dir=branch", "optimizer.lr=1e-4"}}},
    {"TargetsAreNamed",
     {},
     {"lora.toml", "train.steps=1", "adapter.targets=[]"},
     {"write [\"all\"], or leave it out"},
     {{"lora.toml", "train.steps=1", "adapter.targets=[\"all\"]"}}},
    {"AnAdapterFreezesTheRest",
     {},
     {"lora.toml", "train.steps=1", "train.freeze=[\"mlp\"]"},
     {"adapter.targets names what is adapted"},
     {{"lora.toml", "train.steps=1", "adapter.targets=[\"q_proj\"]"}}},
    {"ALoadedAdapterNeedsItsMethod",
     {{"lora.toml", "train.steps=1", "run.dir=first"}},
     {"full.toml", "train.steps=1", "adapter.load=first/adapter"},
     {"set adapter.method and its options to the saved adapter's"},
     {{"full.toml", "train.steps=1", "adapter.load=first/adapter", "adapter.method=lora", "adapter.rank=3"}}},
    {"ALoadedAdapterNeedsItsRank",
     {{"lora.toml", "train.steps=1", "run.dir=first"}},
     {"lora.toml", "train.steps=1", "adapter.load=first/adapter", "adapter.rank=4"},
     {"was saved with", "3", "4"},
     {{"lora.toml", "train.steps=1", "adapter.load=first/adapter", "adapter.rank=3"}}},
    {"LoadedSharingNeedsItsMethod",
     {{"rps.toml", "train.steps=1", "run.dir=first"}},
     {"full.toml", "train.steps=1", "sharing.load=first/sharing"},
     {"set sharing.method and its options to the saved ones"},
     {{"rps.toml", "train.steps=1", "sharing.load=first/sharing", "run.dir=second"}}},
    {"SharedWeightsAreNamed",
     {},
     {"rps.toml", "train.steps=1", "sharing.shared=[]"},
     {"write [\"linears\"], or leave it out"},
     {{"rps.toml", "train.steps=1", "sharing.shared=[\"linears\"]"}}},
    {"SharedWeightsHaveAWholeModelInPlaceOfPeft",
     {},
     {"rps.toml", "train.steps=1", "adapter.method=lora", "export.peft=true"},
     {"set export.peft = false; export.merged = true then writes the dense model with the adapter in it"},
     {{"rps.toml", "train.steps=1", "adapter.method=lora", "export.peft=false", "export.merged=true"}}},
    {"SamplesHaveAPlainName",
     {},
     {"full.toml", "job=generate", "generate.limit=1", "generate.output=there/samples.txt"},
     {"give a plain file name that ends in .jsonl"},
     {{"full.toml", "job=generate", "generate.limit=1", "generate.max_new_tokens=2", "generate.output=mine.jsonl"}}},
    {"ThereIsSomethingToContinue",
     {},
     {"full.toml", "job=generate", "data.eval="},
     {"give generate.prompts, generate.prompts_file or data.eval"},
     {{"full.toml", "job=generate", "data.eval=", "generate.prompts=[\"copy ba\"]", "generate.max_new_tokens=2"},
      {"full.toml", "job=generate", "data.eval=", "generate.prompts_file=short.jsonl", "generate.max_new_tokens=2"},
      {"full.toml", "job=generate", "data.eval=short.jsonl", "generate.max_new_tokens=2"}}},
    {"ThereIsSomethingToEvaluateOn",
     {},
     {"full.toml", "job=evaluate", "data.eval="},
     {"name the file to evaluate on"},
     {{"full.toml", "job=evaluate", "data.eval=eval.jsonl"}}},
    {"ShardsDivideTheWidths",
     {},
     {"mos.toml", "train.steps=1", "adapter.shards=3"},
     {"divisors up to 32: 1,2,4,8"},
     {{"mos.toml", "train.steps=1", "adapter.shards=4"}}},
    {"PrivateRanksFitTheBudget",
     {},
     {"mos.toml", "train.steps=1", "adapter.private_rank=3"},
     {"set adapter.private_rank to 0..2"},
     {{"mos.toml", "train.steps=1", "adapter.private_rank=0"},
      {"mos.toml", "train.steps=1", "adapter.private_rank=1", "run.dir=second"}}},
    {"AllPrivateIsPlainLora",
     {},
     {"mos.toml", "train.steps=1", "adapter.private_rank=2"},
     {"set adapter.rank = 2, or adapter.private_rank below 2"},
     {{"mos.toml", "train.steps=1", "adapter.private_rank=2", "adapter.rank=2"},
      {"mos.toml", "train.steps=1", "adapter.private_rank=1", "run.dir=second"}}},
    {"CompressionOfOneOrMore",
     {},
     {"rps.toml", "train.steps=1", "sharing.compression=0.5"},
     {"set sharing.compression to 1 or more"},
     {{"rps.toml", "train.steps=1", "sharing.compression=1"}}},
    {"SomethingIsLargeEnoughToShare",
     {},
     {"rps.toml", "train.steps=1", "sharing.min_numel=1000000"},
     {"lower sharing.min_numel (1000000)"},
     {{"rps.toml", "train.steps=1", "sharing.min_numel=1000"}}},
    {"ATileFitsThePool",
     {},
     {"rps.toml", "train.steps=1", "sharing.layout=tile", "sharing.mapper=roast-tile", "sharing.tile_rows=256",
      "sharing.tile_cols=256"},
     {"lower sharing.tile_rows and sharing.tile_cols, or sharing.compression"},
     {{"rps.toml", "train.steps=1", "sharing.layout=tile", "sharing.mapper=roast-tile", "sharing.tile_rows=16",
       "sharing.tile_cols=16"}}},
    {"NoMoreBlocksThanLayers",
     {},
     {"full.toml", "train.steps=1", "sharing.method=depth", "sharing.blocks=5"},
     {"sharing.blocks may be 1 .. 2"},
     {{"full.toml", "train.steps=1", "sharing.method=depth", "sharing.blocks=1"},
      {"full.toml", "train.steps=1", "sharing.method=depth", "sharing.blocks=2", "run.dir=second"}}},
    {"FreezeLeavesSomething",
     {},
     {"full.toml", "train.steps=1", "train.freeze=[\".\"]"},
     {"name fewer tensors"},
     {{"full.toml", "train.steps=1", "train.freeze=[\"mlp\"]"}}},
    {"ARunOfSharedWeightsIsReadAsSuch",
     {{"rps.toml", "train.steps=1", "run.dir=first"}},
     {"full.toml", "job=evaluate", "run.dir=first"},
     {"set [sharing] as the run has it in its recipe.toml, or name another folder with run.dir"},
     {{"first/recipe.toml", "job=evaluate", "run.dir=first"}, {"full.toml", "job=evaluate", "run.dir=second"}}},
    {"AnAdapterIsTrainedOrLoaded",
     {{"mos.toml", "train.steps=1", "run.dir=first"}},
     {"mos.toml", "job=evaluate", "run.dir=second"},
     {"set adapter.load to a folder that a training wrote, or adapter.method=none for the base model alone"},
     {{"mos.toml", "job=evaluate", "run.dir=second", "adapter.load=first/adapter"},
      {"mos.toml", "job=evaluate", "run.dir=second", "adapter.method=none"}}},
    {"TheBaseIsNotWrittenOverAModel",
     {{"full.toml", "train.steps=1", "run.dir=first"}},
     {"full.toml", "job=export", "run.dir=first"},
     {"the model that this run trained is already written, in \"first/model\"\n",
      "use it as it is; run.resume=FILE writes what a checkpoint holds, another run.dir=FOLDER the base model"},
     {{"full.toml", "job=evaluate", "run.dir=first"},
      {"full.toml", "job=export", "run.dir=first", "run.resume=first/checkpoints/step-00000001.h5"},
      {"full.toml", "job=export", "run.dir=second"}}},
    {"FewerStepsBeginAnew",
     {{"mos.toml", "train.steps=4", "run.dir=first"}},
     {"mos.toml", "train.steps=2", "run.dir=first"},
     {"train.steps was 4, now 2", "start anew with run.resume=never or another run.dir\n"},
     {{"mos.toml", "train.steps=2", "run.dir=first", "run.resume=never"},
      {"mos.toml", "train.steps=2", "run.dir=second"}}},
    {"ACheckpointHasNoWayBack",
     {{"mos.toml", "train.steps=4", "run.dir=first"}},
     {"mos.toml", "train.steps=2", "run.dir=second", "run.resume=first/checkpoints/step-00000004.h5"},
     {"the run has 4 steps behind it, train.steps is 2", "ask for more steps, or start anew with run.resume=never"},
     {{"mos.toml", "train.steps=5", "run.dir=third", "run.resume=first/checkpoints/step-00000004.h5"},
      {"mos.toml", "train.steps=2", "run.dir=second", "run.resume=never"}}},
    {"APeftFolderIsNoNativeAdapter",
     {{"lora.toml", "train.steps=1", "export.peft=true", "run.dir=first"}},
     {"lora.toml", "job=evaluate", "adapter.load=first/peft"},
     {"name the folder of the native adapter"},
     {{"lora.toml", "job=evaluate", "adapter.load=first/adapter"}}},
    {"ARowHoldsAllChoices",
     {},
     labelled({"spsa.toml", "train.steps=1", "train.sequence_length=8", kWords}),
     {"set train.sequence_length to"},
     {labelled({"spsa.toml", "train.steps=1", "train.sequence_length=64", kWords})}},
    {"ARoundThatTheLogHolds",
     {{"spsa.toml", "train.steps=10", "run.dir=first"}},
     {"spsa.toml", "job=replay", "run.dir=first", "replay.round=11"},
     {"name a round that the log holds, or leave replay.round out for the last"},
     {{"spsa.toml", "job=replay", "run.dir=first", "replay.round=10"}}},
    {"AReplayHasAFolderOfItsOwn",
     {{"spsa.toml", "train.steps=10", "run.dir=first"}},
     {"spsa.toml", "job=replay", "run.dir=first", "replay.log=first"},
     {"name another folder: the run's own results stay as they are"},
     {{"spsa.toml", "job=replay", "run.dir=second", "replay.log=first"}}},
    {"AReplayHasTheRunsAdapter",
     {{"spsa.toml", "train.steps=10", "run.dir=first"}},
     {"spsa.toml", "job=replay", "run.dir=first", "adapter.rank=5"},
     {"set [adapter], [sharing], train.freeze and model.path as the run had them"},
     {{"spsa.toml", "job=replay", "run.dir=first", "adapter.rank=3"}}},
    {"ABranchIsANewRun",
     {{"spsa.toml", "train.steps=10", "run.dir=first"}, {"spsa.toml", "train.steps=1", "run.dir=branch"}},
     {"spsa.toml", "job=replay", "run.dir=first", "replay.branch=branch"},
     {"name another folder, or remove this one"},
     {{"spsa.toml", "job=replay", "run.dir=first", "replay.branch=other"}}},
};

INSTANTIATE_TEST_SUITE_P(Walks, Hints, testing::ValuesIn(kWalks),
                         [](const testing::TestParamInfo<Walk>& walk) { return walk.param.name; });

}  // namespace
}  // namespace tessera
