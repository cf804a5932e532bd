// [generate.adapters] as its users see it: adapters by name in one batch.

#include <fmt/core.h>
#include <gmock/gmock.h>

#include <set>
#include <sstream>

#include "support/workbench.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class NamedAdaptersOfABatch : public test::Workbench {
 protected:
  void train(const std::string& method, const std::string& run, const Words& more = {}) const {
    expect_done(trainer(joined({method + ".toml", "run.dir=" + run, "train.steps=20", "optimizer.lr=0.05",
                                "export.peft=true", "export.merged=false"},
                               more)));
  }
  void write(const std::string& name, const std::string& text) const { test::write_file(*this / name, text); }
  /// A recipe of the base with these adapters.
  void write_recipe(const std::string& adapters, const std::string& more = "") const {
    const auto tokenizer = test::source_dir() / "recipes/world/tokenizer";
    write("serve.toml", fmt::format("job = \"generate\"\n[model]\npath = \"base\"\ninit = \"random\"\n"
                                    "tokenizer = \"{}\"\n[run]\ndir = \"run\"\nthreads = 1\n"
                                    "[generate]\nprompts_file = \"batch.jsonl\"\n{}\n[generate.adapters]\n{}\n",
                                    tokenizer.string(), more, adapters));
  }
  std::vector<Json> samples(const std::string& run = "run") const {
    std::vector<Json> all;
    std::istringstream lines(test::read_file(*this / run / "samples.jsonl"));
    for (std::string line; std::getline(lines, line);) all.push_back(Json::parse(line, "samples.jsonl"));
    return all;
  }
  static std::string line(const std::string& id, const std::string& options,
                          const std::string& prompt = "copy da di =") {
    return fmt::format("{{\"custom_id\": \"{}\", \"prompt\": \"{}\", \"max_tokens\": 6, \"logprobs\": 0{}{}}}\n", id,
                       prompt, options.empty() ? "" : ", ", options);
  }
};

TEST_F(NamedAdaptersOfABatch, AnswerAsTheRunsThatTrainedThem) {
  train("lora", "law");
  train("mos", "tax");
  write("batch.jsonl", line("q", ""));
  for (const auto& [method, run] : {std::pair{"lora", "law"}, {"mos", "tax"}, {"full", "plain"}})
    expect_done(trainer({fmt::format("{}.toml", method), "job=generate", "generate.prompts_file=batch.jsonl",
                         fmt::format("run.dir={}", run)}));
  write_recipe("law = \"law/adapter\"\ntax = \"tax\"\npeft = \"law/peft\"\ntwin = \"law\"");
  write("batch.jsonl", line("0", "\"adapter\": \"law\"") + line("1", "\"adapter\": \"tax\"") +
                           line("2", "\"adapter\": \"peft\"") + line("3", "\"adapter\": \"twin\"") + line("4", "") +
                           line("5", "\"adapter\": \"base\""));
  const std::string check = expect_done(trainer({"serve.toml", "--check"})).out;
  EXPECT_THAT(check, AllOf(HasSubstr("adapter \"law\": lora, rank 3, "), HasSubstr("adapter \"tax\": mos, rank "),
                           HasSubstr("adapter \"peft\": PEFT lora, rank 3, "),
                           HasSubstr("adapter \"twin\": lora, rank 3, the same as \"law\""),
                           Not(HasSubstr("no request names it"))));
  const auto adapters = plan({"serve.toml"}).at("adapters").items();
  ASSERT_EQ(adapters.size(), 4);
  EXPECT_EQ(adapters[0].at("name").as_string(), "law");
  EXPECT_EQ(adapters[0].at("rank").as_integer(), 3);
  EXPECT_EQ(adapters[1].at("method").as_string(), "PEFT lora");
  EXPECT_EQ(adapters[0].at("bytes").as_integer(), adapters[3].at("bytes").as_integer());
  expect_done(trainer({"serve.toml"}));
  const auto got = samples();
  const auto outputs = [](const Json& sample) { return sample.at("outputs").dump(); };
  EXPECT_EQ(outputs(got[0]), outputs(samples("law")[0]));
  EXPECT_EQ(outputs(got[1]), outputs(samples("tax")[0]));
  EXPECT_EQ(outputs(got[2]), outputs(got[0]));
  EXPECT_EQ(outputs(got[3]), outputs(got[0]));
  EXPECT_EQ(outputs(got[4]), outputs(samples("plain")[0]));
  EXPECT_EQ(outputs(got[5]), outputs(got[4]));
  EXPECT_NE(outputs(got[0]), outputs(got[4]));
  EXPECT_NE(outputs(got[1]), outputs(got[4]));
  const auto cached = [&](size_t i) { return got[i].at("usage").at("cached_tokens").as_integer(); };
  EXPECT_EQ(cached(1), 0);
  EXPECT_EQ(cached(2), 0);  // the same matrices, from another folder
  EXPECT_EQ(cached(3), got[3].at("usage").at("prompt_tokens").as_integer());
  EXPECT_EQ(cached(4), 0);
  EXPECT_EQ(cached(5), got[5].at("usage").at("prompt_tokens").as_integer());
}

TEST_F(NamedAdaptersOfABatch, ActFromATokenOn) {
  train("lora", "law");
  train("mos", "tax");
  write_recipe("law = \"law\"\ntax = \"tax\"", "adapter = \"law\"");
  write("batch.jsonl", line("0", "\"activation_offset\": 3") +
                           line("1", "\"activation_offset\": 3, \"adapter\": \"tax\"") +
                           line("2", "\"adapter\": \"base\"") + line("3", ""));
  expect_done(trainer({"serve.toml"}));
  const auto together = samples();
  const Json report = Json::parse(test::read_file(*this / "run/generate_report.json"), "report");
  const int64_t tokens = together[0].at("usage").at("prompt_tokens").as_integer();
  EXPECT_EQ(report.at("tokens").at("computed").as_integer(), 3 + 3 * (tokens - 3) + tokens);
  std::set<std::string> different;
  for (size_t i = 0; i < 4; ++i) {
    std::istringstream all(test::read_file(*this / "batch.jsonl"));
    std::string own;
    for (size_t k = 0; k <= i; ++k) std::getline(all, own);
    write("one.jsonl", own + "\n");
    expect_done(trainer({"serve.toml", "generate.prompts_file=one.jsonl", fmt::format("run.dir=alone{}", i)}));
    EXPECT_EQ(samples(fmt::format("alone{}", i))[0].at("outputs").dump(), together[i].at("outputs").dump()) << i;
    different.insert(together[i].at("outputs").dump());
  }
  EXPECT_EQ(different.size(), 4);
}

TEST_F(NamedAdaptersOfABatch, AreModelsOfOpenAisLines) {
  train("lora", "law");
  write_recipe("law = \"law\"");
  const auto body = [](const std::string& id, const std::string& model) {
    return fmt::format(R"({{"custom_id": "{}", "method": "POST", "url": "/v1/completions", "body": {{"model": "{}", )"
                       R"("prompt": "copy da di =", "max_tokens": 4, "temperature": 0}}}})"
                       "\n",
                       id, model);
  };
  write("batch.jsonl", body("a", "law") + body("b", "base"));
  expect_done(trainer({"serve.toml"}));
  const auto text = [&](size_t i) {
    return samples()[i].at("response").at("body").at("choices").items().at(0).at("text").as_string();
  };
  EXPECT_EQ(samples()[0].at("response").at("body").at("model").as_string(), "law");
  EXPECT_NE(text(0), text(1));
}

TEST_F(NamedAdaptersOfABatch, ArePartOfWhatAnswersAreOf) {
  train("lora", "law");
  train("lora", "other", {"adapter.alpha=5"});
  write_recipe("law = \"law\"");
  write("batch.jsonl", line("0", "\"adapter\": \"law\"") + line("1", ""));
  expect_done(trainer({"serve.toml"}));
  EXPECT_THAT(expect_done(trainer({"serve.toml"})).err, HasSubstr("nothing is left to do"));
  // One that no request names is no part of it.
  EXPECT_THAT(expect_done(trainer({"serve.toml", "generate.adapters.more=other"})).err,
              HasSubstr("nothing is left to do"));
  EXPECT_THAT(expect_done(trainer({"serve.toml", "generate.adapters.more=other", "--check"})).out,
              HasSubstr("adapter \"more\": lora, rank 3, "));
  const std::string before = test::read_file(*this / "run/samples.jsonl");
  EXPECT_THAT(expect_done(trainer({"serve.toml", "generate.adapters.law=other"})).err,
              HasSubstr("this one takes its place"));
  EXPECT_NE(test::read_file(*this / "run/samples.jsonl"), before);
}

TEST_F(NamedAdaptersOfABatch, ThatCannotAnswerAreRefusedBeforeAnythingIsComputed) {
  train("lora", "law");
  write("batch.jsonl", line("0", "\"adapter\": \"law\"") + line("1", "\"adapter\": \"tax\""));
  write_recipe("law = \"law\"");
  EXPECT_THAT(fault({"serve.toml"}),
              HasSubstr("batch.jsonl:2: the adapter \"tax\" is unknown\n  known ones: base, law"));
  write("batch.jsonl", line("0", "\"adapter\": \"law\""));
  EXPECT_THAT(fault({"serve.toml", "generate.adapter=tax"}),
              HasSubstr("generate.adapter is \"tax\", which is no adapter here\n  name one of [generate.adapters]"));
  EXPECT_THAT(fault({"serve.toml", "generate.adapters.tax=nowhere"}),
              HasSubstr("command line: generate.adapters.tax: the adapter's folder \""));
  write_recipe("base = \"law\"");
  EXPECT_THAT(fault({"serve.toml"}), HasSubstr("serve.toml:13:1: an adapter cannot be called \"base\""));
  write_recipe("\"a b\" = \"law\"");
  EXPECT_THAT(fault({"serve.toml"}), HasSubstr("\"a b\" is no name of an adapter"));
  write_recipe("law = 3");
  EXPECT_THAT(fault({"serve.toml"}), HasSubstr("serve.toml:13:"));
  // Trained on other weights: the same shapes.
  write_recipe("law = \"law\"");
  EXPECT_THAT(fault({"serve.toml", "train.seed=77"}),
              AllOf(HasSubstr("was saved with base_fingerprint"), HasSubstr("it belongs to another base model")));
  EXPECT_FALSE(std::filesystem::exists(*this / "run/samples.jsonl"));
  std::filesystem::resize_file(*this / "law/adapter/lora.safetensors", 100);
  EXPECT_THAT(fault({"serve.toml"}), HasSubstr("lora.safetensors"));
}

TEST_F(NamedAdaptersOfABatch, TakeOfTheMemoryThatKeysAndValuesHave) {
  train("lora", "law", {"adapter.rank=64"});
  write_recipe("law = \"law\"");
  write("batch.jsonl", line("0", ""));
  const Words words = {"serve.toml", "generate.memory_gib=0.0001"};
  expect_done(trainer(words));
  write("batch.jsonl", line("0", "\"adapter\": \"law\""));
  EXPECT_THAT(fault(words), AllOf(HasSubstr("request 1 alone needs"), HasSubstr("beside adapters of ")));
}

}  // namespace
}  // namespace tessera
