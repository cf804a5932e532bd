// Models by their names of the hub: what a run calls them, what it writes of them, what it says of those that are not
// there.

#include <gmock/gmock.h>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Cache : public test::Workbench {
 protected:
  Cache() {
    fs::create_directories(*this / "hub/models--org--name/refs");
    put_snapshot("0123456789abcdef");
  }
  /// The workbench's model with its weights, as refs/main's. @param eps  sets it apart from other snapshots
  void put_snapshot(const std::string& commit, const std::string& eps = "1e-5") {
    const fs::path to = snapshot(commit);
    fs::create_directories(to);
    expect_done(trainer({"full.toml", "job=export", "run.dir=drawn"}));
    for (const auto& entry : fs::directory_iterator(*this / "drawn/model"))
      if (entry.path().filename() != "tessera.json") fs::copy(entry.path(), to);
    fs::remove_all(*this / "drawn");
    replace("hub/models--org--name/snapshots/" + commit + "/config.json", "1e-05", eps);
    test::write_file(*this / "hub/models--org--name/refs/main", commit);
  }
  fs::path snapshot(const std::string& commit) const { return *this / "hub/models--org--name/snapshots" / commit; }
  test::Command named(Words more) const {
    Words words = {"lora.toml", "model.path=org/name", "model.init=pretrained", "train.steps=2", "run.dir=run"};
    test::Command command = trainer(joined(std::move(words), more));
    command.environment["HF_HUB_CACHE"] = (*this / "hub").string();
    return command;
  }
};

TEST_F(Cache, ModelsAreCalledByTheirNames) {
  const std::string out = expect_done(named({"export.peft=true"})).err;
  EXPECT_THAT(test::read_file(*this / "run/log.txt"),
              AllOf(HasSubstr("org/name (0123456): 2 layers"), Not(HasSubstr("89abcdef: "))));
  EXPECT_THAT(test::read_file(*this / "run/report.html"), HasSubstr("org/name (0123456)"));
  const Json peft = Json::parse(test::read_file(*this / "run/peft/adapter_config.json"), "peft");
  EXPECT_EQ(peft.at("base_model_name_or_path").as_string(), "org/name");
  EXPECT_EQ(peft.at("revision").as_string(), "0123456789abcdef");
}

TEST_F(Cache, ARunWhoseModelMovedOnIsLedBackToItsSnapshot) {
  expect_done(named({"checkpoint.every=1"}));
  put_snapshot("fedcba", "2e-05");
  const std::string before = "model.path=" + snapshot("0123456789abcdef").string();
  EXPECT_THAT(
      expect_exit(2, named({"checkpoint.every=1", "train.steps=3"})).err,
      HasSubstr("the cache has a newer snapshot of org/name now; the one that the run began with is still there: " +
                before));
  expect_done(named({"checkpoint.every=1", "train.steps=3", before}));
}

TEST_F(Cache, ModelsThatAreNotThereComeWithWhatToSay) {
  const auto said_of = [&](const std::string& path) { return expect_exit(2, named({"model.path=" + path})).err; };
  EXPECT_THAT(said_of("Org/Name"), HasSubstr("did you mean \"org/name\", which is there?"));
  EXPECT_THAT(said_of("https://huggingface.co/org/name"),
              HasSubstr("it is in the cache of Hugging Face: say model.path=org/name"));
  EXPECT_THAT(said_of("https://huggingface.co/org/other/tree/main"),
              HasSubstr("hf download org/other, then say model.path=org/other"));
  EXPECT_THAT(said_of("hub/models--org--name/snapshots"), HasSubstr("say model.path=org/name"));
  EXPECT_THAT(said_of("nowhere"), HasSubstr("or org/name, a model that \"hf download org/name\" has fetched"));
  EXPECT_THAT(expect_exit(2, named({"model.tokenizer=Org/Name"})).err, HasSubstr("did you mean \"org/name\""));
  EXPECT_THAT(expect_exit(2, named({"model.tokenizer=nowhere"})).err,
              HasSubstr("name the folder of tokenizer.json, or"));
  fs::remove(snapshot("0123456789abcdef") / "tokenizer.json");
  EXPECT_THAT(expect_exit(2, named({"model.tokenizer="})).err,
              HasSubstr("there is no tokenizer.json\n  not all of the model was downloaded: hf download org/name"));
  test::write_file(*this / "hub/models--org--name/refs/main", "moved");
  EXPECT_THAT(said_of("org/name"), AllOf(HasSubstr("names another, \"moved\", which is not there"),
                                         HasSubstr(snapshot("0123456789abcdef").string())));
}

}  // namespace
}  // namespace tessera
