#include "data/jsonl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "core/random.h"
#include "data/data_record.h"
#include "data/prompts.h"
#include "support/paths.h"

namespace tessera {
namespace {

using testing::ElementsAre;

std::vector<std::string> documents(const std::string& file, const std::string& content, const DataConfig& config = {}) {
  std::vector<std::string> all;
  for_each_document(file, content, config, [&](TextExample document) {
    all.push_back(document.prompt + "|" + document.completion);
    return true;
  });
  return all;
}

std::string fault(const std::string& file, const std::string& content, const DataConfig& config = {}) {
  try {
    documents(file, content, config);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no fault";
}

DataConfig with_templates(const std::string& prompt, const std::string& completion) {
  DataConfig config;
  config.prompt_template = prompt;
  config.completion_template = completion;
  return config;
}

TEST(Jsonl, ReadsTextsAndPairsOfOneFile) {
  EXPECT_THAT(documents("a.jsonl", R"({"text": "one"}
{"prompt": "2+2=", "completion": "4", "id": 7}
)"),
              ElementsAre("|one", "2+2=|4"));
}

TEST(Jsonl, LinesMayEndInCrLfBeBlankOrLackTheLastEnd) {
  EXPECT_THAT(documents("a.jsonl", "\xEF\xBB\xBF\r\n{\"text\": \"a\\r\\n\"}\r\n  \t\n\n{\"text\": \"b\"}"),
              ElementsAre("|a\r\n", "|b"));
}

TEST(Jsonl, OtherLineSeparatorsOfUnicodeStayInTheText) {
  EXPECT_THAT(documents("a.jsonl",
                        "{\"text\": \"a\xE2\x80\xA8"
                        "b\xC2\x85"
                        "c\"}\n"),
              ElementsAre("|a\xE2\x80\xA8"
                          "b\xC2\x85"
                          "c"));
}

TEST(Jsonl, UndoesEscapes) {
  EXPECT_THAT(documents("a.jsonl", R"({"text": "\u00e9\ud83d\ude00\n\"\\"})"), ElementsAre("|\u00e9\U0001F600\n\"\\"));
}

TEST(Jsonl, StopsAfterTheFirstDocumentsAndReadsNoFurther) {
  DataConfig config;
  config.max_documents = 2;
  EXPECT_THAT(documents("a.jsonl", "{\"text\":\"a\"}\n\n{\"text\":\"b\"}\nnot read\n", config),
              ElementsAre("|a", "|b"));
}

TEST(Jsonl, TemplatesTakeMembersPathsAndNumbers) {
  const DataConfig config = with_templates("{q.text} ({{{n}}}) {tags.1}:", " {a}{b}");
  EXPECT_THAT(
      documents("a.jsonl", R"({"q": {"text": "why?"}, "n": 3, "tags": ["x", "y"], "a": true, "b": 0.5})", config),
      ElementsAre("why? ({3}) y:| true0.5"));
}

TEST(Jsonl, NumbersComeOutAsTheRecordSpellsThem) {
  const std::string record =
      R"({"a": 1.10, "b": [1e5, -0.0, 12345678901234567890], "c": {"d": 1E+2}, "t": "1.10 \"3\"", "u": 1e400})";
  EXPECT_THAT(documents("a.jsonl", record, with_templates("{a} {b.0} {b.1}", "{b.2} {c.d} {t}")),
              ElementsAre("1.10 1e5 -0.0|12345678901234567890 1E+2 1.10 \"3\""));
  EXPECT_THAT(documents("a.jsonl", record, with_templates("{u}", "{u}")), ElementsAre("1e400|1e400"));
}

TEST(Jsonl, LabelsAreComparedAsTheRecordSpellsThem) {
  DataConfig config = with_templates("{x}", "");
  config.label_words = {" low", " high"};
  config.labels = {"1.10", "12345678901234567890"};
  EXPECT_THAT(
      documents("a.jsonl", "{\"x\": \"p\", \"label\": 12345678901234567890}\n{\"x\": \"q\", \"label\": 1.10}", config),
      ElementsAre("p| high", "q| low"));
  EXPECT_THAT(fault("a.jsonl", R"({"x": "p", "label": 1.1})", config),
              testing::HasSubstr("the label \"1.1\" is none of: \"1.10\", \"12345678901234567890\""));
}

TEST(Jsonl, ANumberThatNobodyReadsRefusesNothing) {
  EXPECT_THAT(documents("a.jsonl", R"({"text": "a", "weight": 1e400, "id": -123456789012345678901234567890})"),
              ElementsAre("|a"));
}

TEST(Jsonl, FaultyNumbersAreStillFaults) {
  for (const char* number : {"01", "1.", ".5", "1e", "--1", "+1", "1.2.3", "0x10", "1_000", "Infinity", "-", "1-2"})
    EXPECT_THAT(fault("a.jsonl", fmt::format(R"({{"text": "a", "n": {}}})", number)),
                testing::StartsWith("a.jsonl:1: not valid JSON at byte "))
        << number;
  EXPECT_THAT(fault("a.jsonl", R"({"n": 1234567, "text": "a",})"),
              testing::StartsWith("a.jsonl:1: not valid JSON at byte 28"));
}

TEST(Jsonl, AMemberNamedLikeAPathComesBeforeThePath) {
  EXPECT_THAT(documents("a.jsonl", R"({"a.b": "whole", "a": {"b": "path"}})", with_templates("", "{a.b}")),
              ElementsAre("|whole"));
}

TEST(Jsonl, ATemplateDecidesEvenWhenTheRecordHasAText) {
  EXPECT_THAT(documents("a.jsonl", R"({"text": "good film", "label": 1})",
                        with_templates("Review: {text}\nLabel:", " {label}")),
              ElementsAre("Review: good film\nLabel:| 1"));
}

TEST(Jsonl, APartWithoutTemplateIsItsPlainField) {
  const std::string record = R"({"prompt": "p", "completion": "c", "x": "y"})";
  EXPECT_THAT(documents("a.jsonl", record, with_templates("[{prompt}]", "")), ElementsAre("[p]|c"));
  EXPECT_THAT(documents("a.jsonl", record, with_templates("", "[{completion}]")), ElementsAre("p|[c]"));
  EXPECT_THAT(documents("a.jsonl", R"({"x": "y"})", with_templates("", "[{x}]")), ElementsAre("|[y]"));
}

TEST(Jsonl, OtherFieldNamesAreRead) {
  DataConfig config;
  config.prompt_field = "question";
  config.completion_field = "answer.short";
  EXPECT_THAT(documents("a.jsonl", R"({"question": "q", "answer": {"short": "a"}})", config), ElementsAre("q|a"));
}

TEST(Jsonl, NamesFileAndLineOfARecordWithoutKnownMembers) {
  EXPECT_EQ(fault("d/a.jsonl", "{\"text\":\"a\"}\n\n{\"question\":\"q\",\"answer\":\"a\"}\n"),
            "d/a.jsonl:3: the record has neither \"text\" nor \"completion\"\n"
            "  members here: question, answer\n"
            "  name yours with data.text_field, or data.prompt_field and data.completion_field, or use templates");
}

TEST(Jsonl, NamesAMissingMemberAndItsNearestName) {
  EXPECT_EQ(fault("a.jsonl", R"({"instruction": "i", "output": "o"})", with_templates("{instructions}", "{output}")),
            "a.jsonl:1: the member \"instructions\" is missing or null\n"
            "  members here: instruction, output\n"
            "  did you mean \"instruction\"?");
  EXPECT_EQ(fault("a.jsonl", R"({"completion": "c"})"),
            "a.jsonl:1: the member \"prompt\" is missing or null\n  members here: completion");
}

TEST(Jsonl, RefusesARecordThatIsTextAndPairAtOnce) {
  const std::string record = R"({"text": "t", "prompt": "p", "completion": "c"})";
  EXPECT_EQ(fault("a.jsonl", record),
            "a.jsonl:1: the record has both \"text\" and \"completion\"\n"
            "  set data.text_field or data.completion_field to \"\" to say which one to leave out");
  DataConfig config;
  config.text_field = "";
  EXPECT_THAT(documents("a.jsonl", record, config), ElementsAre("p|c"));
}

TEST(Jsonl, RefusesMembersOfTheWrongKind) {
  EXPECT_EQ(fault("a.jsonl", R"({"prompt": "p", "completion": 4})"),
            "a.jsonl:1: the member \"completion\" is no text: 4\n"
            "  a template turns numbers into text: data.completion_template = \"{completion}\"");
  EXPECT_EQ(fault("a.jsonl", R"({"x": ["y"]})", with_templates("", "{x}")),
            "a.jsonl:1: the member \"x\" is a list or an object, a template takes text and numbers\n"
            "  name what is inside it, for example {x.0}");
  EXPECT_EQ(fault("a.jsonl", "[1, 2]"), "a.jsonl:1: a record is a JSON object {...}, found [1,2]");
}

TEST(Jsonl, NamesTheLineOfBrokenJsonAndOfBytesThatAreNoUtf8) {
  EXPECT_THAT(fault("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \n"),
              testing::StartsWith("a.jsonl:2: not valid JSON at byte "));
  EXPECT_EQ(fault("a.jsonl", "{\"text\": \"\xC3(\"}"),
            "a.jsonl:1: byte 11 is not UTF-8 (0xc3)\n  convert the file to UTF-8");
  EXPECT_EQ(fault("a.txt", "one\ntwo\nthr\xFF"), "a.txt:3: byte 4 is not UTF-8 (0xff)\n  convert the file to UTF-8");
}

TEST(Jsonl, RefusesFilesWithoutDocuments) {
  EXPECT_EQ(fault("a.jsonl", "\n \n"), "a.jsonl: the file holds no records");
  EXPECT_EQ(fault("a.txt", " \n"), "a.txt: the file holds no text");
  EXPECT_EQ(fault("a.txt", ""), "a.txt: the file holds no text");
}

TEST(Jsonl, RefusesFilesWhoseNameSaysAnotherFormat) {
  EXPECT_EQ(fault("a.JSON", "[]"),
            "a.JSON: .json files are not read\n  give a .jsonl file (one JSON object a line) or a text file");
}

TEST(Jsonl, ATextFileIsOneDocumentByteForByte) {
  EXPECT_THAT(documents("book.txt", "one\r\n\ntwo\n"), ElementsAre("|one\r\n\ntwo\n"));
}

/// The fault of an attempt, or "".
template <class Attempt> std::string fault_in(const Attempt& attempt) {
  try {
    attempt();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(DataRecord, AcceptsAndRefusesWhatTheParserDoes) {
  const std::string line = R"({"a": -1.10e+5, "b": [0, 12, {"c": "1.5\"2"}], "d": true, "e": null, "f": 3})";
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    std::string changed = line;
    for (uint64_t i = 0, n = 1 + seed % 2; i < n; ++i)
      changed[draw_below(seed, 2 * i, changed.size())] = R"(01-+.eE"\ ,:[]{}ntxu)"[draw_below(seed, 2 * i + 1, 21)];
    const std::string parsed = fault_in([&] { Json::parse(changed, "a:1"); });
    const std::string read = fault_in([&] { DataRecord(changed, "a:1"); });
    EXPECT_EQ(read, parsed) << changed;
    if (!read.empty()) continue;
    const DataRecord record(changed, "a:1");
    const Json whole = Json::parse(changed, "a:1");
    for (const auto& [name, value] : whole.members()) {
      const auto is_namesake = [&, key = name](const auto& member) { return member.first == key; };
      const bool is_once = std::count_if(whole.members().begin(), whole.members().end(), is_namesake) == 1;
      if (is_once && value.is_number()) {
        EXPECT_EQ(Json::parse(record.spelled(name), "").as_number(), value.as_number()) << changed;
        EXPECT_NE(changed.find(record.spelled(name)), std::string::npos) << changed;
      }
    }
  }
}

class Prompts : public testing::Test {
 protected:
  std::vector<std::string> read(const std::string& name, const std::string& content, const DataConfig& config = {},
                                int64_t limit = 0) {
    test::write_file(folder_ / name, content);
    std::vector<std::string> all;
    for (const TextExample& each : load_prompts(folder_ / name, config, limit))
      all.push_back(each.prompt + "|" + each.completion);
    return all;
  }
  std::string fault_of(const std::string& name, const std::string& content) {
    try {
      read(name, content);
    } catch (const UserError& error) {
      const std::string text = error.what();
      return text.substr(text.find(name));
    }
    return "no fault";
  }

  test::TemporaryFolder folder_;
};

TEST_F(Prompts, OfATextFileAreItsLinesAsTheyStand) {
  EXPECT_THAT(read("a.txt", "\xEF\xBB\xBFone \r\n\n  two\n\t\nthree"), ElementsAre("one |", "  two|", "three|"));
  EXPECT_THAT(read("a.txt", "one\ntwo\nthree\n", {}, 2), ElementsAre("one|", "two|"));
}

TEST_F(Prompts, OfRecordsNeedNoCompletion) {
  const std::string records = R"({"prompt": "p"}
{"prompt": "q", "completion": "c"}
{"text": "t"}
)";
  for (const char* name : {"a.jsonl", "a.ndjson", "a.JSONL"})
    EXPECT_THAT(read(name, records), ElementsAre("p|", "q|c", "t|"));
}

TEST_F(Prompts, OfRecordsFollowTheFieldsAndTemplatesOfTheData) {
  DataConfig config;
  config.prompt_field = "question.text";
  EXPECT_THAT(read("a.jsonl", R"({"question": {"text": "why?"}, "prompt": "no"})", config), ElementsAre("why?|"));
  config = with_templates("Q: {q} ({n})\nA:", " {answer}");
  EXPECT_THAT(
      read("a.jsonl", "{\"q\": \"why?\", \"n\": 1.10}\n{\"q\": \"how?\", \"n\": 2, \"answer\": \"so\"}", config),
      ElementsAre("Q: why? (1.10)\nA:|", "Q: how? (2)\nA:| so"));
  config = with_templates("{x} was", "");
  config.label_words = {" bad", " good"};
  EXPECT_THAT(read("a.jsonl", "{\"x\": \"it\", \"label\": 1}\n{\"x\": \"she\"}", config),
              ElementsAre("it was| good", "she was|"));
}

TEST_F(Prompts, NameFileAndLineOfAFault) {
  EXPECT_EQ(fault_of("a.txt", "one\ntw\xFF"), "a.txt:2: byte 3 is not UTF-8 (0xff)\n  convert the file to UTF-8");
  EXPECT_THAT(fault_of("a.jsonl", "{\"prompt\": \"p\"}\n{\"q\": 1}"),
              testing::StartsWith("a.jsonl:2: the record has neither \"prompt\" nor \"text\"\n  members here: q"));
  EXPECT_THAT(fault_of("a.csv", "one\n"), testing::StartsWith("a.csv: .csv files are not read"));
  EXPECT_THAT(fault_of("a.jsonl.txt", "{\"prompt\": \"p\"}\n{\"prompt\": \"q\"}\n"),
              testing::StartsWith("a.jsonl.txt: holds JSON lines, and its name says that it is plain text"));
  EXPECT_EQ(fault_of("a.txt", " \n"), "a.txt: the file holds no prompts\n  write one a line");
}

TEST(RecordTemplate, NamesTheKeyAndPlaceOfAFault) {
  const auto fault_of = [](const std::string& text) {
    try {
      RecordTemplate(text, "data.prompt_template");
    } catch (const UserError& error) {
      return error.where() + ": " + error.message();
    }
    return std::string("no fault");
  };
  EXPECT_EQ(fault_of("a {b"), "data.prompt_template: \"{\" at byte 3 is not closed");
  EXPECT_EQ(fault_of("a {b{c}"), "data.prompt_template: \"{\" at byte 3 is not closed");
  EXPECT_EQ(fault_of("a } b"), "data.prompt_template: \"}\" at byte 3 closes nothing");
  EXPECT_EQ(fault_of("{}"), "data.prompt_template: the placeholder at byte 1 names no member");
  EXPECT_EQ(fault_of("{{}} {a}"), "no fault");
}

TEST(Jsonl, NamesThatSayJsonl) {
  for (const char* name : {"a.jsonl", "a.JSONL", "a.ndjson", "a.jsonlines"}) EXPECT_TRUE(is_jsonl(name)) << name;
  for (const char* name : {"a.txt", "a", "jsonl", "a.jsonl.txt", "a.jsonl.bak"}) EXPECT_FALSE(is_jsonl(name)) << name;
}

TEST(Jsonl, JsonLinesUnderAnotherNameAreNotTakenForText) {
  const auto look = [](const std::string& content) {
    try {
      return look_at_text("d.jsonl.txt", content);
    } catch (const UserError& error) {
      return error.message();
    }
  };
  const std::string refused = "holds JSON lines, and its name says that it is plain text";
  EXPECT_EQ(look("{\"text\": \"a\"}\n{\"text\": \"b\"}\n"), refused);
  EXPECT_EQ(look("\xEF\xBB\xBF\n {\"text\": \"a\"}\r\n\n{}"), refused);
  EXPECT_EQ(look("{\"text\": \"a\"}"), refused);
  const std::string told =
      "note: d.jsonl.txt begins with a JSON object and is read as plain text, since its name does not end in .jsonl";
  EXPECT_EQ(look("{\n  \"text\": \"a\"\n}\n"), told);
  EXPECT_EQ(look("{\"text\": \"a\"}\nis a record\n"), told);
  for (const char* text : {"", " \n", "Once upon a time", "{x} and {y}", "{", "[1, 2]", "{{\"a\"}}"})
    EXPECT_EQ(look(text), "") << text;
}

}  // namespace
}  // namespace tessera
