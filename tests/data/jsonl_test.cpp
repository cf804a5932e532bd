#include "data/jsonl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

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

}  // namespace
}  // namespace tessera
