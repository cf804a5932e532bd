// Which kind of requests a file holds, and what its lines then are.

#include <gmock/gmock.h>

#include "infer/draws.h"
#include "infer/request_files.h"

namespace tessera {
namespace {

using namespace test;
using testing::HasSubstr;

RequestKind kind_of(const std::string& line) { return RequestFiles().read(line).kind; }

TEST(RequestKinds, AreToldByTheFirstLine) {
  EXPECT_EQ(kind_of("once upon a time"), RequestKind::text);
  EXPECT_EQ(kind_of("[1, 2]"), RequestKind::text);
  EXPECT_EQ(kind_of("17"), RequestKind::text);
  EXPECT_EQ(kind_of(R"({"text": "a"})"), RequestKind::records);
  EXPECT_EQ(kind_of(R"({"prompt": "a"})"), RequestKind::records);
  EXPECT_EQ(kind_of(R"({"prompt": "a", "completion": "b"})"), RequestKind::records);
  EXPECT_EQ(kind_of(R"({"prompt": "a", "colour": "red"})"), RequestKind::records);
  EXPECT_EQ(kind_of(R"({"custom_id": "1", "prompt": "a"})"), RequestKind::batch);
  EXPECT_EQ(kind_of(R"({"prompt_token_ids": [1]})"), RequestKind::batch);
  EXPECT_EQ(kind_of(R"({"prefix": "a", "contexts": ["b"]})"), RequestKind::batch);
  EXPECT_EQ(kind_of(R"({"prompt": "a", "temperature": 0.5})"), RequestKind::batch);
  EXPECT_EQ(kind_of(R"({"prompt": "a", "max_new_tokens": 5})"), RequestKind::batch);
  EXPECT_EQ(kind_of(openai_line(R"({"prompt": "a"})")), RequestKind::openai);
}

TEST(RequestKinds, SkipBlankLinesAndAByteOrderMark) {
  const RequestFile file = RequestFiles().read("\xEF\xBB\xBF\n  \n{\"custom_id\": \"1\", \"prompt\": \"hi\"}\r\n\n");
  EXPECT_EQ(file.kind, RequestKind::batch);
  ASSERT_EQ(file.requests.size(), 1u);
  EXPECT_EQ(file.requests[0].prompt, ids_of("hi"));
  EXPECT_THAT(file.lines[0].where, HasSubstr("in.jsonl:3"));
}

TEST(RequestKinds, CannotBeToldOfALineWithNamesOfBoth) {
  const RequestFiles files;
  EXPECT_EQ(
      files.fault(R"({"prompt": "a", "temperature": 0.5, "colour": "red"})"),
      "in.jsonl:1: this could be a batch line with the unknown name \"colour\", or a record of data with a member "
      "\"temperature\"\n"
      "  say which with generate.kind = \"batch\" or \"records\"");
  const std::string line = R"({"prompt": "a", "seed": 3, "colour": "red"})";
  EXPECT_EQ(files.read(line, "records").lines[0].example.prompt, "a");
  EXPECT_EQ(files.fault(line, "batch"), "in.jsonl:1: the name \"colour\" is unknown");
}

TEST(RequestKinds, AreOfMembersThatTheDataNames) {
  RequestFiles files;
  files.data.prompt_template = "{seed}: {n.0}";
  EXPECT_EQ(files.read(R"({"seed": "a", "n": ["b"]})").kind, RequestKind::records);
  EXPECT_EQ(files.read(R"({"seed": "a", "n": ["b"]})").lines[0].example.prompt, "a: b");
}

TEST(RequestKinds, AreOneInAFile) {
  const RequestFiles files;
  const std::string batch = R"({"custom_id": "1", "prompt": "a"})", record = R"({"text": "b"})";
  EXPECT_EQ(files.fault(batch + "\n" + record),
            "in.jsonl:2: this line is of the kind \"records\" (records of data), and by in.jsonl:1 the file is of the "
            "kind \"batch\" (batch lines)\n"
            "  all lines are of one kind; generate.kind says which, where the first line does not");
  EXPECT_THAT(files.fault(record + "\n\n" + batch), HasSubstr("in.jsonl:3: this line is of the kind \"batch\""));
  EXPECT_THAT(files.fault("words\n" + record), HasSubstr("in.jsonl:2: this line is of the kind \"records\""));
  EXPECT_THAT(files.fault(openai_line(R"({"prompt": "a"})") + "\n" + batch), HasSubstr("by in.jsonl:1"));
  EXPECT_THAT(files.fault(batch + "\nwords"), HasSubstr("of the kind \"text\" (text)"));
  EXPECT_EQ(files.read("words\n" + record, "text").requests.size(), 2u) << "the recipe says so";
}

TEST(RequestKinds, TakeAPlainPromptAmongBatchLines) {
  const RequestFile file = RequestFiles().read("{\"custom_id\": \"1\", \"prompt\": \"a\"}\n{\"prompt\": \"b\"}");
  ASSERT_EQ(file.requests.size(), 2u);
  EXPECT_EQ(file.requests[1].custom_id, "");
}

TEST(RequestKinds, DoNotTakeABrokenObjectForText) {
  RequestFiles files;
  EXPECT_THAT(files.fault(R"({"prompt": "a")"), HasSubstr("in.jsonl:1: not valid JSON at byte"));
  EXPECT_THAT(files.fault("{\"custom_id\": \"1\", \"prompt\": \"a\"}\n{\"prompt\": \"b\""),
              HasSubstr("in.jsonl:2: not valid JSON at byte"));
  files.name = "in.txt";
  EXPECT_EQ(files.read("{braces").kind, RequestKind::text) << "no file of JSON lines by its name";
}

TEST(RequestKinds, AreRefusedByNamesThatAreNotRead) {
  RequestFiles files;
  for (const char* name : {"in.gz", "in.jsonl.zst", "in.csv"}) {
    files.name = name;
    EXPECT_THAT(files.fault("a"), HasSubstr(" files are not read")) << name;
  }
  files.name = "in.jsonl";
  EXPECT_THAT(files.fault("a", "lines"), HasSubstr("generate.kind is \"lines\""));
  EXPECT_THAT(files.fault("\n \n"), HasSubstr("the file holds no requests"));
}

TEST(RequestKinds, OfTextAndRecordsGiveTheRecipesRequests) {
  RequestFiles files;
  files.defaults.request.max_tokens = 9;
  files.defaults.request.n = 2;
  const RequestFile text = files.read(" hello \nhello");
  ASSERT_EQ(text.requests.size(), 2u);
  EXPECT_EQ(text.requests[0].prompt, (std::vector<int32_t>{260, ' '})) << "as it stands";
  EXPECT_EQ(text.requests[0].max_tokens, 9);
  EXPECT_EQ(text.requests[0].best_of, 2) << "as many as n";
  EXPECT_EQ(text.requests[0].stop_ids, (std::vector<int32_t>{261}));
  const RequestFile records = files.read(R"({"prompt": "a", "completion": "b"})");
  EXPECT_EQ(records.lines[0].example.completion, "b");
}

TEST(RequestKinds, EndAtTheirBounds) {
  RequestFiles files;
  EXPECT_EQ(files.read("a\nb\nc", "auto", 2).requests.size(), 2u);
  EXPECT_EQ(files.read("a\nb\n\xFF", "auto", 2).requests.size(), 2u) << "what is behind is not read";
  EXPECT_EQ(files.read(R"({"prefix": "a", "contexts": ["b", "c", "d"]})", "auto", 2).requests.size(), 2u);
  files.data.max_documents = 1;
  EXPECT_EQ(files.read("a\nb\nc", "auto", 2).requests.size(), 1u);
  EXPECT_EQ(files.read("{\"custom_id\": \"1\", \"prompt\": \"a\"}\n{\"prompt\": \"b\"}").requests.size(), 2u)
      << "batch lines are no data";
}

TEST(RequestKinds, OfTextsWithoutAFileNameTheirPlace) {
  const RequestFiles files;
  const auto read = [&](const std::vector<TextExample>& texts) {
    return requests_of(texts, "generate.prompts", files.data, files.tokenizer, files.defaults);
  };
  const RequestFile file = read({{"a", ""}, {"b", "c"}});
  EXPECT_EQ(file.lines[1].where, "generate.prompts: prompt 2");
  EXPECT_EQ(file.lines[1].example.completion, "c");
  EXPECT_EQ(error_text([&] {
              read({{"a", ""}, {"", ""}});
            }),
            "generate.prompts: prompt 2: the prompt has no tokens, and this tokenizer names no begin of a text\n"
            "  give a prompt of one character at least");
}

TEST(RequestSeeds, HangOnNothingButTheRequest) {
  const RequestFiles files;
  const auto line = [](const std::string& id, const std::string& more = "") {
    return R"({"custom_id": ")" + id + R"(", "prompt": "a")" + more + "}\n";
  };
  const RequestFile one = files.read(line("x") + line("y", R"(, "seed": 3)"));
  const RequestFile other = files.read(line("z") + line("y") + line("x"));
  EXPECT_EQ(one.requests[0].seed, default_seed(7, "x"));
  EXPECT_EQ(one.requests[1].seed, 3u);
  EXPECT_EQ(other.requests[2].seed, one.requests[0].seed);
  const RequestFile texts = files.read("a\nb\na\na");
  const std::vector<int32_t> a = ids_of("a");
  EXPECT_EQ(texts.requests[0].seed, default_seed(7, a, 0));
  EXPECT_EQ(texts.requests[1].seed, default_seed(7, ids_of("b"), 0));
  EXPECT_EQ(texts.requests[2].seed, default_seed(7, a, 1));
  EXPECT_EQ(texts.requests[3].seed, default_seed(7, a, 2));
  const RequestFile some =
      files.read("{\"prompt\": \"a\", \"seed\": 3}\n{\"custom_id\": \"x\", \"prompt\": \"a\"}\n{\"prompt\": \"a\"}");
  EXPECT_EQ(some.requests[2].seed, default_seed(7, a, 1)) << "behind one without custom_id, whatever its seed is";
}

TEST(RequestFaults, AreToldTogetherUpToTen) {
  const RequestFiles files;
  std::string text = "{\"custom_id\": \"1\", \"prompt\": \"a\"}\n";
  for (int i = 0; i < 12; ++i) text += fmt::format("{{\"prompt\": \"a\", \"top_k\": {}}}\n", -2 - i);
  const std::string message = files.fault(text);
  EXPECT_THAT(message, testing::StartsWith("in.jsonl:2: \"top_k\" is -2, expected a whole number from -1 to 2^63 - 1\n"
                                           "  in.jsonl:3: \"top_k\" is -3, expected"));
  EXPECT_THAT(message, HasSubstr("in.jsonl:11: \"top_k\" is -11"));
  EXPECT_THAT(message, testing::Not(HasSubstr("in.jsonl:12")));
  EXPECT_THAT(message, testing::EndsWith("\n  12 faults, the first 10 are told"));
  EXPECT_THAT(files.fault("{\"custom_id\": 1}\n{\"prompt\": 2}\n"), testing::EndsWith("\n  2 faults"));
}

}  // namespace
}  // namespace tessera
