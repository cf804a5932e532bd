// job = "generate" as its users see it.

#include <fmt/core.h>
#include <gmock/gmock.h>

#include <sstream>

#include "core/error.h"
#include "support/workbench.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class Generation : public test::Workbench {
 protected:
  test::Ended generate(Words more, int code = 0) const {
    more.insert(more.begin(), {"full.toml", "job=generate", "generate.max_new_tokens=4", "run.dir=run"});
    return expect_exit(code, trainer(more));
  }
  std::vector<Json> samples() const {
    std::vector<Json> all;
    std::istringstream lines(test::read_file(*this / "run/samples.jsonl"));
    for (std::string line; std::getline(lines, line);) all.push_back(Json::parse(line, "samples.jsonl"));
    return all;
  }
  std::vector<std::string> prompts() const {
    std::vector<std::string> all;
    for (const Json& sample : samples()) all.push_back(sample.at("prompt").as_string());
    return all;
  }
  void write(const std::string& name, const std::string& text) const { test::write_file(*this / name, text); }
};

TEST_F(Generation, KeepsTheSpaceBetweenPromptAndContinuation) {
  const std::string out = generate({"generate.prompts=[\"copy da di =\"]"}).out;
  const std::string text = samples().at(0).at("completion").as_string();
  EXPECT_EQ(text.front(), ' ');
  EXPECT_THAT(out, testing::StartsWith("copy da di =" + text + "\n"));
}

TEST_F(Generation, EndsAtEveryTokenThatAConfigurationNames) {
  generate({"generate.prompts=[\"copy da di =\"]"});
  const Json free_running = samples().at(0);
  EXPECT_EQ(free_running.at("finish").as_string(), "max_new_tokens");
  std::string every = "0";
  for (int id = 1; id < 300; ++id) every += fmt::format(", {}", id);
  write("base/generation_config.json", "{\"eos_token_id\": [" + every + "]}");
  generate({"generate.prompts=[\"copy da di =\"]"});
  EXPECT_EQ(samples().at(0).at("finish").as_string(), "stop");
  EXPECT_EQ(samples().at(0).at("completion").as_string(), "");
  write("base/generation_config.json", R"({"eos_token_id": "</s>"})");
  EXPECT_THAT(generate({"generate.prompts=[\"copy da di =\"]"}, 2).err,
              HasSubstr("generation_config.json: \"eos_token_id\" is"));
}

TEST_F(Generation, ReadsPromptsByTheRulesOfTheData) {
  write("p.txt",
        "\xEF\xBB\xBF"
        "copy da =\r\n\ncopy di =\n");
  generate({"generate.prompts_file=p.txt"});
  EXPECT_THAT(prompts(), ElementsAre("copy da =", "copy di ="));
  write("p.ndjson", "{\"q\": \"da\", \"n\": 1.10}\n");
  generate({"generate.prompts_file=p.ndjson", "data.prompt_template=copy {q} {n} ="});
  EXPECT_THAT(prompts(), ElementsAre("copy da 1.10 ="));
  EXPECT_EQ(samples().at(0).find("expected"), nullptr);
  write("p.txt", "copy\ncop\xFF\n");
  EXPECT_THAT(generate({"generate.prompts_file=p.txt"}, 2).err, HasSubstr("p.txt:2: byte 4 is not UTF-8 (0xff)"));
  write("p.jsonl", "{\"prompt\": \"copy\", \"completion\": 3}\n");
  EXPECT_THAT(generate({"generate.prompts_file=p.jsonl"}, 2).err,
              HasSubstr("p.jsonl:1: the member \"completion\" is no text: 3"));
  write("p.csv", "copy\n");
  EXPECT_THAT(generate({"generate.prompts_file=p.csv"}, 2).err,
              AllOf(HasSubstr("p.csv"), HasSubstr(".csv files are not read")));
}

/// A tokenizer that puts nothing in front of a text.
constexpr const char* kBare =
    R"({"added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel",
  "unk_token": "<unk>", "vocab": {"<unk>": 0, "copy": 3, "da": 4, "=": 5}}})";

TEST_F(Generation, APromptThatCannotBeContinuedLosesNoOther) {
  std::filesystem::create_directories(*this / "bare");
  write("bare/tokenizer.json", kBare);
  const test::Ended ended = generate({"model.tokenizer=bare", "generate.prompts=[\"copy da\", \"\", \"da =\"]"}, 2);
  EXPECT_THAT(ended.err, AllOf(HasSubstr("prompt 2: the prompt has no tokens"),
                               HasSubstr("1 of 3 prompts could not be continued")));
  EXPECT_THAT(prompts(), ElementsAre("copy da", "", "da ="));
  EXPECT_EQ(samples().at(0).at("finish").as_string(), "max_new_tokens");
  EXPECT_EQ(samples().at(1).at("finish").as_string(), "failed");
  EXPECT_THAT(samples().at(1).at("fault").as_string(), HasSubstr("has no tokens"));
  EXPECT_EQ(samples().at(2).at("finish").as_string(), "max_new_tokens");
}

/// Words, and an end that only a template writes; the model's config.json calls it the end of a text.
constexpr const char* kWithEnd =
    R"({"added_tokens": [{"id": 2, "content": "<|im_end|>", "special": true}], "pre_tokenizer": {"type": "WhitespaceSplit"},
  "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "<|im_end|>": 2, "in": 3, "the": 4, "hall": 5,
  "way": 6, "Max": 7, "Ida": 8}}})";

// Greedy decoding and teacher forcing count the same completions, with a taught end and without.
TEST_F(Generation, CountsTheCompletionsThatAnEvaluationCounts) {
  std::filesystem::create_directories(*this / "words");
  write("words/tokenizer.json", kWithEnd);
  const std::string max = R"({"prompt": "Max", "completion": "in the hall"})", ida = R"({"prompt": "Ida", )",
                    way = ida + R"("completion": "in the hall way"})", hall = ida + R"("completion": "in the hall"})";
  write("facts.jsonl", max + "\n" + way + "\n");
  write("asked.jsonl", max + "\n" + way + "\n" + hall + "\n");
  struct Case {
    std::string ending;
    int right;
  };
  for (const auto& [ending, right] : {Case{"<|im_end|>", 2}, Case{"", 3}}) {
    const Words words = {"full.toml",   "model.tokenizer=words", "data.train=facts.jsonl", "data.eval=asked.jsonl",
                         "run.dir=run", "train.steps=60",        "train.batch=1"};
    const Words data = {"data.completion_template={completion}" + ending};
    std::filesystem::remove_all(*this / "run");
    expect_done(trainer(joined(words, data)));
    const Json judged = Json::parse(expect_done(trainer(joined(joined(words, data), {"job=evaluate"}))).out, "figures");
    EXPECT_NEAR(judged.at("exact_match").as_number(), right / 3.0, 1e-6) << ending;
    const test::Ended ended =
        generate(joined(joined({words.begin() + 1, words.end()}, data), {"generate.max_new_tokens=5"}));
    EXPECT_THAT(ended.out, HasSubstr(fmt::format("completions right: {} of 3", right)));
    EXPECT_THAT(ended.err, Not(HasSubstr("cannot come out right")));
    const auto all = samples();
    EXPECT_EQ(all.at(2).at("expected").as_string(), all.at(0).at("completion").as_string().substr(0, 12)) << ending;
    EXPECT_EQ(all.at(2).at("exact").as_bool(), right == 3);
    const test::Ended cut =
        generate(joined(joined({words.begin() + 1, words.end()}, data), {"generate.max_new_tokens=4"}));
    EXPECT_EQ(cut.err.find("note: 1 of 3 expected completions have more tokens") != std::string::npos, right == 2);
  }
}

TEST_F(Generation, SaysWhenThereAreMoreTokensThanTheModelKnows) {
  const Words prompt = {"generate.prompts=[\"copy da di =\"]"};
  std::string every = "0";  // ends at once
  for (int id = 1; id < 300; ++id) every += fmt::format(", {}", id);
  write("base/generation_config.json", "{\"eos_token_id\": [" + every + "]}");
  EXPECT_THAT(generate(prompt).err, Not(HasSubstr("positions that config.json says")));
  EXPECT_THAT(generate({"generate.prompts=[\"copy da di =\"]", "generate.max_new_tokens=4000"}).err,
              HasSubstr("positions that config.json says the model knows"));
  const Words evaluate = {"full.toml", "job=evaluate", "train.sequence_length=4096", "run.dir=other"};
  EXPECT_THAT(expect_done(trainer(evaluate)).err, HasSubstr("note: rows of 4096 tokens are longer than"));
}

TEST_F(Generation, SaysThatTheTokenizerDoesNotKnowThePromptsWords) {
  EXPECT_THAT(generate({"generate.prompts=[\"what is this\"]"}).err, HasSubstr("of the prompts' tokens are <unk>"));
  EXPECT_THAT(generate({"generate.prompts=[\"copy da =\"]"}).err, Not(HasSubstr("<unk>")));
}

TEST_F(Generation, SaysThatATemplateWritesWhatTheTokenizerAdds) {
  const char* note = "note: data.prompt_template writes <s>, which the tokenizer adds by itself: it is there once";
  write("p.jsonl", "{\"q\": \"da\"}\n");
  EXPECT_THAT(generate({"generate.prompts_file=p.jsonl", "data.prompt_template=<s> copy {q} ="}).err, HasSubstr(note));
  EXPECT_THAT(generate({"generate.prompts_file=p.jsonl", "data.prompt_template=copy {q} ="}).err, Not(HasSubstr(note)));
}

}  // namespace
}  // namespace tessera
