// What a run writes: exported folders hold it and nothing else, altered ones are told, and no input is written over.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Outputs : public test::Workbench {
 protected:
  void write(const std::string& name, const std::string& text) {
    fs::create_directories((*this / name).parent_path());
    test::write_file(*this / name, text);
  }
};

TEST_F(Outputs, WeightsOfOthersInAFolderToBeWrittenAreRefusedBeforeStep1) {
  for (const char* name : {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "pytorch_model.bin"}) {
    write(std::string("run/model/") + name, "{}");
    EXPECT_THAT(fault({"full.toml", "run.dir=run", "train.steps=1"}),
                AllOf(HasSubstr("run/model"), HasSubstr(std::string("holds \"") + name + "\"")));
    EXPECT_THAT(fault({"lora.toml", "run.dir=run", "train.steps=1", "export.merged=true"}), HasSubstr(name));
    EXPECT_FALSE(fs::exists(*this / "run/metrics.jsonl"));
    fs::remove_all(*this / "run");
  }
  write("run/peft/adapter_model.bin", "");
  EXPECT_THAT(fault({"lora.toml", "run.dir=run", "train.steps=1", "export.peft=true"}),
              HasSubstr("holds \"adapter_model.bin\""));
  EXPECT_FALSE(fs::exists(*this / "run/metrics.jsonl"));
  expect_done(trainer({"lora.toml", "run.dir=run", "train.steps=1"}));  // which writes neither of the two
}

TEST_F(Outputs, AnExportHoldsTheTokenizersFilesOfTodayAndNoLeftovers) {
  fs::copy(test::source_dir() / "recipes/world/tokenizer", *this / "words");
  for (const char* name : {"added_tokens.json", "merges.txt", "tokenizer.model", "vocab.json"})
    write(std::string("words/") + name, "{}");
  write("base/generation_config.json", "{\"eos_token_id\": 2}");
  const Words words = {"full.toml", "job=export", "run.dir=run", "model.tokenizer=words"};
  expect_done(trainer(words));
  for (const char* name : {"added_tokens.json", "merges.txt", "tokenizer.model", "vocab.json"})
    EXPECT_EQ(test::read_file(*this / "run/model" / name), "{}");
  EXPECT_EQ(test::read_file(*this / "run/model/generation_config.json"), "{\"eos_token_id\": 2}");

  for (const char* name : {"added_tokens.json", "merges.txt", "tokenizer.model", "vocab.json"})
    fs::remove(*this / "words" / name);
  fs::remove(*this / "run/model/model.safetensors");
  write("run/model/.model.safetensors.tmp-77", "of a killed export");
  write("run/model/notes.md", "mine");
  expect_done(trainer(words));
  auto names = names_in(*this / "words");
  for (const char* name : {"config.json", "generation_config.json", "model.safetensors", "notes.md", "tessera.json"})
    names.emplace_back(name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  EXPECT_EQ(names_in(*this / "run/model"), names);
  EXPECT_THAT(temporaries("run"), ElementsAre());
}

TEST_F(Outputs, AFlippedByteOfATrainedModelIsFound) {
  expect_done(trainer({"full.toml", "run.dir=run", "train.steps=1"}));
  const fs::path model = *this / "run/model";
  const std::string good = test::read_file(model / "model.safetensors");
  std::mt19937_64 random(3);
  const std::vector<Words> readers = {
      {"full.toml", "run.dir=run", "job=evaluate"},
      {"full.toml", "run.dir=run", "job=generate", "generate.limit=1"},
      {"lora.toml", "run.dir=other", "model.path=run/model", "model.init=pretrained"},
      {"full.toml", "run.dir=more", "model.path=run/model", "model.init=pretrained", "job=export"}};
  for (int time = 0; time < 8; ++time) {
    std::string bad = good;
    bad[bad.size() / 2 + random() % (bad.size() / 2)] ^= static_cast<char>(1 << random() % 8);  // of the numbers
    test::write_file(model / "model.safetensors", bad);
    EXPECT_THAT(fault(readers[static_cast<size_t>(time) % readers.size()]),
                AllOf(HasSubstr("model.safetensors: its SHA-256 is "), HasSubstr("tessera.json says")));
  }
  std::string bad = good;
  bad[40] ^= 1;  // of the names and shapes, which are read before all is hashed
  test::write_file(model / "model.safetensors", bad);
  EXPECT_THAT(fault(readers[0]), HasSubstr("model.safetensors"));
  test::write_file(model / "model.safetensors", good);
  expect_done(trainer(readers[0]));
  test::write_file(model / "config.json", test::read_file(model / "config.json") + "\n");
  EXPECT_THAT(fault(readers[0]), HasSubstr("where the change is meant, remove tessera.json from it"));
  fs::remove(model / "tessera.json");
  expect_done(trainer(readers[0]));
}

TEST_F(Outputs, NoInputIsWrittenOver) {
  const auto kept = [&](const std::string& input, const Words& words, const std::string& key) {
    const std::string before = test::read_file(*this / input);
    EXPECT_THAT(fault(words), AllOf(HasSubstr("this job would write over what it reads: " + key), HasSubstr("run.dir")))
        << input;
    EXPECT_EQ(test::read_file(*this / input), before) << input;
  };
  const std::string data = test::read_file(*this / "train.jsonl");
  write("run/metrics.jsonl", data);
  kept("run/metrics.jsonl", {"lora.toml", "run.dir=run", "data.train=run/metrics.jsonl"}, "data.train");
  kept("run/metrics.jsonl", {"lora.toml", "run.dir=./run/../run", "data.eval=run/./metrics.jsonl"}, "data.eval");
  fs::remove(*this / "run/metrics.jsonl");
  fs::create_symlink(*this / "train.jsonl", *this / "run/log.txt");  // which would be appended to
  kept("train.jsonl", {"lora.toml", "run.dir=run"}, "data.train");
  fs::remove(*this / "run/log.txt");
  fs::create_hard_link(*this / "train.jsonl", *this / "run/metrics.jsonl");
  kept("train.jsonl", {"lora.toml", "run.dir=run"}, "data.train");
  fs::remove(*this / "run/metrics.jsonl");

  write("run/samples.jsonl", "{\"prompt\": \"copy ba =\", \"completion\": \"ba\"}\n");
  kept("run/samples.jsonl", {"full.toml", "job=generate", "run.dir=run", "generate.prompts_file=run/samples.jsonl"},
       "generate.prompts_file");

  expect_done(trainer({"lora.toml", "run.dir=first", "train.steps=1"}));
  fs::create_symlink(*this / "first", *this / "link");
  fs::remove(*this / "first/metrics.jsonl");
  fs::remove_all(*this / "first/checkpoints");
  kept("first/adapter/adapter.json", {"lora.toml", "run.dir=link", "adapter.load=first/adapter", "train.steps=1"},
       "adapter.load");
  expect_done(trainer({"full.toml", "job=export", "run.dir=dense"}));
  fs::copy(test::source_dir() / "recipes/world/tokenizer", *this / "run/model");
  kept("run/model/tokenizer.json", {"full.toml", "run.dir=run", "model.tokenizer=run/model", "train.steps=1"},
       "model.tokenizer");
}

TEST_F(Outputs, ARecipeInItsOwnRunFolderStaysAsItIs) {
  fs::create_directories(*this / "run");
  fs::copy_file(*this / "lora.toml", *this / "run/recipe.toml");
  const std::string mine = test::read_file(*this / "run/recipe.toml");
  const Words words = {"run/recipe.toml",        "run.dir=run",         "train.steps=2", "model.path=base",
                       "data.train=train.jsonl", "data.eval=eval.jsonl"};
  EXPECT_THAT(fault(words), HasSubstr("this job would write over what it reads: the recipe"));
  EXPECT_EQ(test::read_file(*this / "run/recipe.toml"), mine);

  expect_done(trainer({"lora.toml", "run.dir=done", "train.steps=2"}));
  std::string written = test::read_file(*this / "done/recipe.toml");
  written = "# trainer 0.0.1" + written.substr(written.find('\n'));  // as an earlier version wrote it
  test::write_file(*this / "done/recipe.toml", written);
  fs::remove(*this / "done/metrics.jsonl");
  fs::remove_all(*this / "done/checkpoints");
  expect_done(trainer({"done/recipe.toml", "run.dir=done"}));  // what it says already
  EXPECT_EQ(test::read_file(*this / "done/recipe.toml"), written);
}

TEST_F(Outputs, ARunsStoredRecipeGoesOnWithTheRun) {
  expect_done(trainer({"lora.toml", "run.dir=run", "train.steps=2"}));
  const auto run = [&](const std::string& folder, const char* steps) {
    return trainer({folder + "/recipe.toml", "run.dir=run", steps});
  };
  EXPECT_THAT(expect_done(run("run", "train.steps=4")).out, HasSubstr("train.steps was 2, now 4"));
  EXPECT_THAT(test::read_file(*this / "run/recipe.toml"), HasSubstr("\nsteps = 4\n"));
  expect_done(run("run", "log.every=1"));  // finished
  expect_done(trainer({"lora.toml", "run.dir=other", "train.steps=2"}));
  const std::string others = test::read_file(*this / "other/recipe.toml");
  fs::remove(*this / "run/recipe.toml");
  fs::create_symlink(*this / "other/recipe.toml", *this / "run/recipe.toml");
  for (const char* folder : {"run", "other"})
    EXPECT_THAT(expect_exit(2, run(folder, "train.steps=6")).err,
                HasSubstr("this job would write over what it reads: the recipe"));
  EXPECT_EQ(test::read_file(*this / "other/recipe.toml"), others);
}

}  // namespace
}  // namespace tessera
