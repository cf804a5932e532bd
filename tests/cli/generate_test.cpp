// job = "generate" as its users see it.

#include <fmt/core.h>
#include <gmock/gmock.h>

#include <csignal>
#include <map>
#include <sstream>

#include "cli/request_batches.h"
#include "core/crc32.h"
#include "core/error.h"
#include "support/workbench.h"

namespace tessera {
namespace {

using test::batch_file;
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

TEST_F(Generation, SearchesByBeams) {
  write("p.txt", "copy da di =\ncopy di =\n");
  generate({"generate.prompts_file=p.txt", "generate.num_beams=4", "generate.n=3", "generate.early_stopping=never",
            "generate.length_penalty=0.5"});
  const std::vector<Json> four = samples();
  ASSERT_EQ(four.size(), 2u);
  EXPECT_EQ(four[0].at("completions").items().size(), 3u);
  EXPECT_EQ(four[0].at("completion").as_string(), four[0].at("completions").items()[0].as_string());

  // A line's own options win, and what shares the file changes nothing.
  write(
      "q.jsonl",
      R"({"custom_id": "a", "prompt": "copy da di =", "num_beams": 4, "n": 3, "early_stopping": "never", "length_penalty": 0.5})"
      "\n"
      R"({"custom_id": "b", "prompt": "copy da di ="})"
      "\n");
  generate({"generate.prompts_file=q.jsonl", "run.dir=other"});
  std::istringstream lines(test::read_file(*this / "other/samples.jsonl"));
  std::string line;
  std::getline(lines, line);
  const Json found = Json::parse(line, "samples.jsonl");
  for (size_t j = 0; j < 3; ++j)
    EXPECT_EQ(found.at("outputs").items().at(j).at("text").as_string(),
              four[0].at("completions").items().at(j).as_string());
  std::getline(lines, line);
  EXPECT_EQ(Json::parse(line, "samples.jsonl").at("outputs").items().size(), 1u);
}

TEST_F(Generation, RefusesBeamsThatDoNotGoTogetherWithTheRest) {
  const Words beams = {"generate.prompts=[\"copy\"]", "generate.num_beams=3"};
  const auto refusal = [&](Words more) {
    more.insert(more.begin(), beams.begin(), beams.end());
    return generate(more, 2).err;
  };
  EXPECT_THAT(refusal({"generate.temperature=0.5"}),
              HasSubstr("generate.num_beams is 3 and generate.temperature 0.5: beams are searched without draws"));
  EXPECT_THAT(refusal({"generate.n=4"}),
              HasSubstr("generate.num_beams is 3 and generate.n 4: there are no more answers than beams"));
  EXPECT_THAT(refusal({"generate.best_of=2"}), HasSubstr("generate.best_of 2: n of the beams are answered"));
  EXPECT_THAT(refusal({"generate.max_new_tokens=0"}), HasSubstr("there is nothing to search for"));
  EXPECT_THAT(refusal({"generate.early_stopping=soon"}), HasSubstr("early_stopping"));
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

TEST_F(Generation, RefusesAPromptWithoutTokensBeforeAnythingIsComputed) {
  std::filesystem::create_directories(*this / "bare");
  write("bare/tokenizer.json", kBare);
  const test::Ended ended = generate({"model.tokenizer=bare", "generate.prompts=[\"copy da\", \"\", \"da =\"]"}, 2);
  EXPECT_THAT(ended.err, HasSubstr("prompt 2: the prompt has no tokens"));
  EXPECT_FALSE(std::filesystem::exists(*this / "run/samples.jsonl"));
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

TEST_F(Generation, HasTheBytesOfAnUninterruptedBatchAfterKills) {
  write("batch.jsonl", batch_file(120));
  const Words batch = {"full.toml", "job=generate", "generate.prompts_file=batch.jsonl"};
  expect_done(trainer(joined(batch, {"run.dir=whole"})));
  const std::string whole = test::read_file(*this / "whole/samples.jsonl");
  EXPECT_EQ(std::count(whole.begin(), whole.end(), '\n'), 120);
  // Steps of few rows, so that a kill finds some requests answered and others not; memory and steps may change between.
  int kills = 0;
  for (int start = 0; start < 60; ++start) {
    test::Process process(
        trainer(joined(batch, {"run.dir=cut", fmt::format("generate.step_tokens={}", 16 + start % 3)})));
    test::sleep_seconds(0.03 + 0.02 * (start % 7));
    if (!process.running()) {
      EXPECT_EQ(process.wait().exit_code, 0);
      break;
    }
    process.send(SIGKILL);
    process.wait();
    ++kills;
  }
  EXPECT_GT(kills, 0);
  expect_done(trainer(joined(batch, {"run.dir=cut"})));
  EXPECT_EQ(test::read_file(*this / "cut/samples.jsonl"), whole);
  EXPECT_TRUE(temporaries("cut").empty());
}

TEST_F(Generation, GoesOnWithItsOwnAnswersAlone) {
  write("batch.jsonl", batch_file(12));
  const Words batch = {"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run"};
  expect_done(trainer(batch));
  const std::string samples = test::read_file(*this / "run/samples.jsonl"),
                    journal = test::read_file(*this / "run/journal/0.log");
  // The same command has nothing to do.
  EXPECT_THAT(expect_done(trainer(batch)).out, HasSubstr("samples: run/samples.jsonl"));
  // Of a batch that has not ended there is the first line and what was answered.
  write("run/journal/0.log", journal.substr(0, journal.find('\n') + 1));
  EXPECT_THAT(fault(joined(batch, {"generate.max_new_tokens=9", "generate.kv_dtype=bf16"})),
              AllOf(HasSubstr("are to other requests, or of another model or other options"),
                    HasSubstr("options.kv_dtype was auto, now bf16")));
  EXPECT_EQ(test::read_file(*this / "run/samples.jsonl"), samples);
  write("run/journal/0.log", journal.substr(0, journal.find('\n') + 1) + "12345678 0 {}\n");
  EXPECT_THAT(fault(batch), HasSubstr("run/journal/0.log:2: the journal is damaged"));
  write("run/journal/0.log", journal);
  write("run/samples.jsonl", samples + "{}\n");
  EXPECT_THAT(fault(batch), HasSubstr("was changed after it was made"));
  std::filesystem::remove(*this / "run/samples.jsonl");
  expect_done(trainer(batch));
  EXPECT_EQ(test::read_file(*this / "run/samples.jsonl"), samples);
  EXPECT_THAT(expect_done(trainer(joined(batch, {"generate.kv_dtype=bf16"}))).err,
              HasSubstr("this one takes its place"));
}

TEST_F(Generation, SaysHowManyAreAnsweredWhenItIsStopped) {
  write("batch.jsonl", batch_file(600));
  const Words batch = {"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "generate.step_tokens=16",
                       "generate.max_sequences=1"};
  test::Process process(trainer(joined(batch, {"run.dir=run"})));
  const std::filesystem::path log = *this / "run/journal/0.log";
  ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(log) && std::filesystem::file_size(log) > 4000; }));
  process.send(SIGINT);
  const test::Ended ended = process.wait(30);
  EXPECT_EQ(ended.exit_code, 130);
  const std::string journal = test::read_file(log);
  const auto answered = std::count(journal.begin(), journal.end(), '\n') - 1;
  EXPECT_GT(answered, 0);
  EXPECT_THAT(ended.err, testing::EndsWith(fmt::format("stopped while generating: {} of 600 requests are answered; the "
                                                       "same command goes on\n",
                                                       answered)));
  EXPECT_THAT(expect_done(trainer(joined(batch, {"run.dir=run"}))).err,
              HasSubstr(fmt::format("going on: {} of 600 requests are answered", answered)));
}

TEST_F(Generation, SaysWhichRequestIsAnotherThanTheJournalHas) {
  write("batch.jsonl", batch_file(12));
  const Words batch = {"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run"};
  expect_done(trainer(batch));
  std::filesystem::remove(*this / "run/samples.jsonl");
  // As if it had been killed when some were answered.
  const auto begun = [&](const std::string& samples) {
    const std::string journal = test::read_file(*this / "run/journal/0.log");
    std::string lines = journal.substr(0, journal.find('\n') + 1);
    std::istringstream answers(samples);
    int number = 0;
    for (std::string line; std::getline(answers, line) && number < 8; ++number) {
      const std::string rest = fmt::format("{} {}", number, line);
      lines += fmt::format("{:08x} {}\n", crc32(rest), rest);
    }
    write("run/journal/0.log", lines);
  };
  expect_done(trainer(batch));
  begun(test::read_file(*this / "run/samples.jsonl"));
  const Json plan = this->plan(batch);
  EXPECT_EQ(plan.at("done").as_integer(), 8);
  EXPECT_EQ(plan.at("left").as_integer(), 4);
  EXPECT_THAT(expect_done(trainer(joined(batch, {"--check"}))).out,
              HasSubstr("8 of 12 are answered, and 4 are left\n"));

  std::string text = batch_file(12);
  text.replace(text.find("\"q5\""), 4, "\"other\"");
  write("batch.jsonl", text);
  EXPECT_THAT(fault(batch), AllOf(HasSubstr("are to other requests"), HasSubstr("batch was "),
                                  HasSubstr("batch.jsonl:6: its custom_id was \"q5\", now \"other\"\n")));
  // What the job would end with is a note, and nothing counts as done.
  EXPECT_EQ(this->plan(batch).at("done").as_integer(), 0);
  EXPECT_THAT(expect_done(trainer(joined(batch, {"--check"}))).out,
              AllOf(HasSubstr("note: as things stand the job would end with: run/journal/0.log: "),
                    HasSubstr("now \"other\"")));
  text = batch_file(12);
  text.replace(text.find("copy mi da ="), 12, "copy mi ="), write("batch.jsonl", text);
  EXPECT_THAT(fault(batch), HasSubstr("its number of prompt tokens was "));
  write("batch.jsonl", batch_file(12));
  EXPECT_THAT(expect_done(trainer(batch)).err, HasSubstr("going on: 8 of 12 requests are answered"));
}

TEST_F(Generation, TellsThePlanAsJson) {
  write("batch.jsonl", batch_file(40));
  const Words batch = {"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run"};
  const Json plan = this->plan(joined(batch, {"generate.kv_dtype=bf16"}));
  EXPECT_EQ(plan.at("job").as_string(), "generate");
  EXPECT_EQ(plan.at("kind").as_string(), "batch");
  EXPECT_EQ(plan.at("requests").as_integer(), 40);
  EXPECT_EQ(plan.at("done").as_integer(), 0);
  EXPECT_EQ(plan.at("left").as_integer(), 40);
  const double logical = plan.at("tokens").at("logical").as_number(),
               physical = plan.at("tokens").at("physical").as_number();
  EXPECT_NEAR(plan.at("tokens").at("saving").as_number(), 100 * (1 - physical / logical), 1e-9);
  EXPECT_NEAR(plan.at("prefix_mean").as_number() + plan.at("distinct_mean").as_number(), logical / 40, 1e-9);
  EXPECT_NEAR(plan.at("sharing_degree").as_number(), 40.0 / plan.at("groups").as_number(), 1e-9);
  int64_t new_tokens = 0;
  for (int i = 0; i < 40; ++i) new_tokens += (3 + i % 9) * (i % 4 == 1 ? 1 + i % 3 : 1);
  EXPECT_EQ(plan.at("tokens").at("new").as_integer(), new_tokens);
  // 2 layers with 2 key-value heads of 8 numbers, pages of 16 tokens, keys and values of 2 bytes.
  const Json config = Json::parse(test::read_file(*this / "base/config.json"), "config.json");
  const int64_t head_dim = config.at("hidden_size").as_integer() / config.at("num_attention_heads").as_integer();
  EXPECT_EQ(plan.at("page_bytes").as_integer(), 2 * 16 * head_dim * 2);
  EXPECT_EQ(plan.at("bytes").at("pages_peak").as_integer(),
            plan.at("pages_peak").as_integer() * plan.at("page_bytes").as_integer());
  EXPECT_EQ(plan.at("bytes").at("activations").as_integer(),
            plan.at("pages_total").as_integer() * plan.at("page_bytes").as_integer() +
                plan.at("bytes").at("scratch").as_integer());
  EXPECT_LT(plan.at("pages_peak").as_integer(), plan.at("pages_total").as_integer());  // generate.high_water is 0.95
  EXPECT_EQ(plan.at("bytes").at("adapters").as_integer(), 0);
  expect_done(trainer(joined(batch, {"generate.kv_dtype=bf16"})));
  const Json report = Json::parse(test::read_file(*this / "run/generate_report.json"), "report");
  EXPECT_LE(report.at("pages_peak").as_integer(), plan.at("pages_peak").as_integer());
  EXPECT_EQ(report.at("tokens").at("reused_batch").as_integer(), static_cast<int64_t>(logical - physical));
  EXPECT_EQ(report.at("log_probability_equals_training").as_string(), "generate.kv_dtype is bf16");
  EXPECT_EQ(report.at("journal").at("resumed").as_integer(), 0);
}

TEST_F(Generation, SaysThatSamplesAtTemperatureZeroAreIdentical) {
  write("batch.jsonl", R"({"custom_id": "a", "prompt": "copy da =", "max_tokens": 2, "n": 3})"
                       "\n"
                       R"({"custom_id": "b", "prompt": "copy da =", "max_tokens": 2, "n": 3, "temperature": 1})"
                       "\n");
  const std::string err =
      expect_done(trainer({"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run"})).err;
  EXPECT_THAT(err, HasSubstr("note: 1 of 2 requests ask for several samples (n) at temperature 0: they are identical"));
  EXPECT_EQ(test::occurrences(err, "identical"), 1);
}

TEST_F(Generation, HasTheSameBytesWhateverIsShared) {
  write("batch.jsonl", batch_file(40));
  const Words batch = {"full.toml", "job=generate", "generate.prompts_file=batch.jsonl"};
  expect_done(trainer(joined(batch, {"run.dir=run"})));
  const std::string samples = test::read_file(*this / "run/samples.jsonl");
  int number = 0;
  for (const Words& keys : {Words{"generate.prefix=off"}, Words{"generate.prefix=level1-greedy", "generate.page=8"},
                            Words{"generate.step_tokens=16", "generate.max_sequences=3"},
                            Words{"generate.memory_gib=0.0001"}, Words{"run.threads=1", "run.target=scalar"}}) {
    const std::string dir = fmt::format("run{}", ++number);
    expect_done(trainer(joined(joined(batch, {"run.dir=" + dir}), keys)));
    EXPECT_EQ(test::read_file(*this / dir / "samples.jsonl"), samples) << keys[0];
  }
}

TEST_F(Generation, FollowsABatchInTheOrderOfItsAnswers) {
  write("batch.jsonl", batch_file(20));
  expect_done(trainer({"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run",
                       "generate.follow=follow.jsonl"}));
  std::map<int64_t, std::string> followed;
  std::istringstream lines(test::read_file(*this / "run/follow.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line, "follow.jsonl");
    followed[json.at("index").as_integer()] = json.at("custom_id").as_string();
  }
  ASSERT_EQ(followed.size(), 20);
  for (const auto& [index, id] : followed) EXPECT_EQ(id, fmt::format("q{}", index));
}

TEST_F(Generation, TakesTheFileOfTheCommandLineAndKeepsItsAnswers) {
  write("batch.jsonl", batch_file(6));
  replace("full.toml", "job = \"train\"", "job = \"generate\"\n[generate]\nprompts = [\"copy da =\"]");
  expect_done(trainer({"full.toml", "generate.prompts_file=batch.jsonl", "run.dir=run"}));
  const std::string answers = test::read_file(*this / "run/samples.jsonl");
  EXPECT_EQ(samples().size(), 6);
  EXPECT_THAT(fault({"full.toml", "run.dir=run"}), HasSubstr("belongs to a file of requests"));
  EXPECT_EQ(test::read_file(*this / "run/samples.jsonl"), answers);
  expect_done(trainer({"full.toml", "run.dir=run", "generate.output=own.jsonl"}));
  // What matters is the name that the answers have, and any way to write over it.
  write("few.jsonl", batch_file(2));
  const Words few = {"full.toml", "generate.prompts_file=few.jsonl", "run.dir=run",
                     "generate.output=few_answers.jsonl"};
  EXPECT_THAT(fault(joined(few, {"generate.follow=samples.jsonl"})), HasSubstr("belongs to a file of requests"));
  EXPECT_EQ(test::read_file(*this / "run/samples.jsonl"), answers);
  expect_done(trainer(few));
  EXPECT_THAT(fault({"full.toml", "run.dir=run", "generate.output=few_answers.jsonl"}),
              HasSubstr("few_answers.jsonl: belongs to a file of requests"));
  EXPECT_EQ(test::read_file(*this / "run/samples.jsonl"), answers);
  write("array.jsonl", R"([{"custom_id": "a", "prompt": "copy da ="}])"
                       "\n");
  EXPECT_THAT(fault({"full.toml", "generate.prompts_file=array.jsonl", "run.dir=other"}),
              HasSubstr("the file begins with a JSON array"));
}

TEST_F(Generation, ScoresContextsFromTheirFirstToken) {
  write("batch.jsonl", R"({"custom_id": "a", "prefix": "copy da di =", "contexts": [" da", " di da"], "max_tokens": 0})"
                       "\n");
  expect_done(trainer({"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run"}));
  EXPECT_EQ(samples().at(0).at("scores").at("token_ids").items().size(), 1);
  EXPECT_EQ(samples().at(1).at("scores").at("token_ids").items().size(), 2);
}

TEST_F(Generation, AnswersWithTheBaseBesideTheAdapter) {
  expect_done(trainer({"lora.toml", "run.dir=run", "train.steps=30", "optimizer.lr=0.05"}));
  const std::string asked = R"("prompt": "copy da di =", "max_tokens": 6, "logprobs": 0)";
  write("batch.jsonl", fmt::format("{{{0}, \"adapter\": \"base\"}}\n{{{0}}}\n", asked));
  expect_done(trainer({"lora.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run"}));
  const auto both = samples();
  write("base.jsonl", fmt::format("{{{}}}\n", asked));
  expect_done(trainer({"full.toml", "job=generate", "generate.prompts_file=base.jsonl", "run.dir=plain"}));
  const Json plain = Json::parse(test::read_file(*this / "plain/samples.jsonl"), "plain");
  EXPECT_EQ(both[0].at("outputs").dump(), plain.at("outputs").dump());
  EXPECT_NE(both[1].at("outputs").dump(), plain.at("outputs").dump());
  EXPECT_EQ(both[1].at("usage").at("cached_tokens").as_integer(), 0);  // keys of another adapter are others
}

TEST_F(Generation, PlansAndReportsWhatItComputes) {
  write("batch.jsonl", batch_file(40));
  const Words batch = {"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run"};
  const std::string check = expect_done(trainer(joined(batch, {"--check"}))).out;
  expect_done(trainer(batch));
  const Json report = Json::parse(test::read_file(*this / "run/generate_report.json"), "report");
  const int64_t logical = report.at("tokens").at("logical").as_integer(),
                computed = report.at("tokens").at("computed").as_integer();
  EXPECT_LT(computed, logical / 2);
  EXPECT_THAT(check, HasSubstr(fmt::format("{} tokens of prompts, {} to compute", logical, computed)));
  int64_t all = 0, cached = 0;
  for (const Json& sample : samples()) {
    all += sample.at("usage").at("prompt_tokens").as_integer();
    cached += sample.at("usage").at("cached_tokens").as_integer();
  }
  EXPECT_EQ(all, logical);
  EXPECT_EQ(all - cached, computed);
  EXPECT_EQ(report.at("requests").as_integer(), 40);
}

TEST_F(Generation, RefusesARequestThatNeverFitsWithBothNumbers) {
  write("batch.jsonl", R"({"custom_id": "long", "prompt": "copy da di =", "max_tokens": 3000})"
                       "\n");
  EXPECT_THAT(
      fault({"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run",
             "generate.memory_gib=0.0001"}),
      AllOf(HasSubstr("request 1 alone needs"), HasSubstr("are allowed"), HasSubstr("raise generate.memory_gib")));
}

TEST_F(Generation, CountsRequestsThatFailedAndAnswersTheOthers) {
  write(
      "batch.jsonl",
      R"({"custom_id": "a", "prompt": "copy da =", "max_tokens": 4, "allowed_token_ids": [5], "no_repeat_ngram_size": 1})"
      "\n"
      R"({"custom_id": "b", "prompt": "copy da =", "max_tokens": 4})"
      "\n");
  const test::Ended ended =
      expect_done(trainer({"full.toml", "job=generate", "generate.prompts_file=batch.jsonl", "run.dir=run"}));
  EXPECT_THAT(ended.err, HasSubstr("1 of 2 requests failed"));
  EXPECT_EQ(samples().at(0).at("error").at("message").as_string(), "no token is allowed");
  EXPECT_EQ(samples().at(0).at("outputs").items().at(0).at("finish_reason").as_string(), "error");
  EXPECT_EQ(samples().at(1).find("error"), nullptr);
}

}  // namespace
}  // namespace tessera
