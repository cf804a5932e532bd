// Lines of answers, to the byte.

#include <gmock/gmock.h>

#include "infer/request_files.h"
#include "infer/requests/result_lines.h"
#include "io/files.h"

namespace tessera {
namespace {

using namespace test;

// A hash like that of a run.
const std::string kIdentity(64, 'f');

std::string answer(const RequestFiles& files, const std::string& line, const std::vector<RequestResult>& results,
                   const std::optional<ExpectedAnswer>& expected = {}) {
  const RequestFile file = files.read(line);
  return ResultLines(file, files.tokenizer, kIdentity).line(0, results, expected);
}

Output hi(Finish finish = Finish::stop) {
  return {.ids = {'h', 'i'}, .text = "hi", .finish = finish, .cumulative_logprob = -1.5};
}

TokenLogprobs logprobs_of(int32_t id, float logprob, std::vector<TokenLogprob> top = {}) {
  return {{id, logprob}, std::move(top)};
}

RequestResult failed() {
  return {.outputs = {{.ids = {'h'}, .text = "h", .finish = Finish::failed, .cumulative_logprob = -0.5}},
          .error = RequestError{"not_finite", "layer 2, row 5: a logit is not finite"},
          .cached_tokens = 1};
}

TEST(ResultLines, OfBatchLines) {
  const RequestFiles files;
  EXPECT_EQ(
      answer(files, R"({"custom_id": "x", "prompt": "ab", "n": 2})",
             {{.outputs = {hi(), hi(Finish::max_position)}, .cached_tokens = 1}}),
      R"({"custom_id":"x","outputs":[)"
      R"({"text":"hi","token_ids":[104,105],"finish_reason":"stop","cumulative_logprob":-1.5,"logprobs":null},)"
      R"({"text":"hi","token_ids":[104,105],"finish_reason":"length","cumulative_logprob":-1.5,"logprobs":null}],)"
      R"("usage":{"prompt_tokens":2,"cached_tokens":1,"completion_tokens":4}})");
}

TEST(ResultLines, OfBatchLinesWithLogprobs) {
  Output output = hi(Finish::max_new_tokens);
  output.logprobs = {logprobs_of('h', -0.5f, {{'i', -0.25f}}), logprobs_of('i', -1, {{'i', -1}})};
  const RequestResult result = {.outputs = {output}, .prompt_logprobs = {logprobs_of('b', -2)}};
  EXPECT_EQ(answer(RequestFiles(), R"({"prompt": "ab", "logprobs": 1, "prompt_logprobs": 0})", {result}),
            R"({"custom_id":null,"outputs":[{"text":"hi","token_ids":[104,105],"finish_reason":"length",)"
            R"("cumulative_logprob":-1.5,"logprobs":[)"
            R"({"token_id":104,"logprob":-0.5,"top":[{"token_id":105,"logprob":-0.25}]},)"
            R"({"token_id":105,"logprob":-1.0,"top":[{"token_id":105,"logprob":-1.0}]}]}],)"
            R"("prompt_logprobs":[null,{"token_id":98,"logprob":-2.0,"top":[]}],)"
            R"("usage":{"prompt_tokens":2,"cached_tokens":0,"completion_tokens":2}})");
}

TEST(ResultLines, OfScores) {
  const Scores scores = {
      .from = 1, .ids = {'b', 'c'}, .logprobs = {-0.5f, -0.25f}, .greedy = {0, 1}, .sum = -0.75, .all_greedy = false};
  const std::string front =
      R"({"custom_id":null,"outputs":[{"text":"","token_ids":[],"finish_reason":"length","cumulative_logprob":0.0,)"
      R"("logprobs":null}],"scores":{"from":1,"token_ids":[98,99],"logprobs":[-0.5,-0.25],"greedy":[false,true],)"
      R"("sum":-0.75,"all_greedy":false)";
  const std::string usage = R"(},"usage":{"prompt_tokens":3,"cached_tokens":0,"completion_tokens":0}})";
  const RequestResult result = {.outputs = {Output{}}, .scores = scores};
  EXPECT_EQ(answer(RequestFiles(), R"({"prompt": "abc", "max_tokens": 0})", {result}), front + usage);
  RequestResult best = result;
  best.prompt_logprobs = {logprobs_of('b', -0.5f, {{'a', -0.125f}}), logprobs_of('c', -0.25f, {{'c', -0.25f}})};
  EXPECT_EQ(answer(RequestFiles(), R"({"prompt": "abc", "max_tokens": 0, "prompt_logprobs": 1})", {best}),
            front + R"(,"top":[[{"token_id":97,"logprob":-0.125}],[{"token_id":99,"logprob":-0.25}]])" + usage);
}

TEST(ResultLines, OfWhatFailed) {
  const std::string error = R"("error":{"code":"not_finite","message":"layer 2, row 5: a logit is not finite"})";
  EXPECT_EQ(answer(RequestFiles(), R"({"custom_id": "x", "prompt": "ab"})", {failed()}),
            R"({"custom_id":"x","outputs":[{"text":"h","token_ids":[104],"finish_reason":"error",)"
            R"("cumulative_logprob":-0.5,"logprobs":null}],)"
            R"("usage":{"prompt_tokens":2,"cached_tokens":1,"completion_tokens":1},)" +
                error + "}");
  EXPECT_EQ(answer(RequestFiles(), "ab", {failed()}),
            R"({"prompt":"ab","completion":"h","finish":"error",)" + error + "}");
  EXPECT_EQ(answer(RequestFiles(), "ab", {{.error = RequestError{"a", "b"}}}),
            R"({"prompt":"ab","completion":"","finish":"error","error":{"code":"a","message":"b"}})");
}

TEST(ResultLines, OfTextsAndRecordsAreTodays) {
  RequestFiles files;
  EXPECT_EQ(answer(files, "ab", {{.outputs = {hi(Finish::max_new_tokens)}}}),
            R"({"prompt":"ab","completion":"hi","finish":"max_new_tokens"})");
  EXPECT_EQ(
      answer(files, R"({"prompt": "a\nb", "completion": "hi"})", {{.outputs = {hi()}}}, ExpectedAnswer{"hi", true}),
      R"({"prompt":"a\nb","completion":"hi","finish":"stop","expected":"hi","exact":true})");
  files.defaults.request.n = 2;
  files.defaults.request.logprobs = 0;
  Output second = hi(Finish::max_position);
  second.text = "ho";
  second.logprobs = {logprobs_of('h', -0.5f)};
  EXPECT_EQ(answer(files, "ab", {{.outputs = {hi(Finish::max_position), second}}}),
            R"({"prompt":"ab","completion":"hi","completions":["hi","ho"],"finish":"max_position",)"
            R"("logprobs":[[],[{"token_id":104,"logprob":-0.5,"top":[]}]]})");
}

/// The 24 digits of the ids of the first line.
std::string digits() { return sha256_hex(kIdentity + ":0").substr(0, 24); }

TEST(ResultLines, OfOpenAiCompletions) {
  EXPECT_EQ(answer(RequestFiles(), openai_line(R"({"model": "law", "prompt": ["ab", "c"], "n": 2})"),
                   {{.outputs = {hi(), hi(Finish::max_position)}, .cached_tokens = 1}, {.outputs = {hi(), hi()}}}),
            R"({"id":"batch_req_)" + digits() +
                R"(","custom_id":"a","response":{"status_code":200,"request_id":"req_)" + digits() +
                R"(","body":{"id":"cmpl-)" + digits() +
                R"(","object":"text_completion","created":0,"model":"law","choices":[)"
                R"({"index":0,"text":"hi","logprobs":null,"finish_reason":"stop"},)"
                R"({"index":1,"text":"hi","logprobs":null,"finish_reason":"length"},)"
                R"({"index":2,"text":"hi","logprobs":null,"finish_reason":"stop"},)"
                R"({"index":3,"text":"hi","logprobs":null,"finish_reason":"stop"}],)"
                R"("usage":{"prompt_tokens":3,"completion_tokens":8,"total_tokens":11,)"
                R"("prompt_tokens_details":{"cached_tokens":1}}}},"error":null})");
}

TEST(ResultLines, OfOpenAiEchoes) {
  Output output = hi();
  output.logprobs = {logprobs_of('h', -0.5f, {{'i', -0.25f}}), logprobs_of('i', -1, {{'i', -1}})};
  const std::string line =
      answer(RequestFiles(), openai_line(R"({"prompt": "\u00e9 hello", "echo": true, "logprobs": 1})"),
             {{.outputs = {output},
               .prompt_logprobs = {logprobs_of(0xA9, -3, {{'c', -0.125f}}), logprobs_of(260, -2, {{'c', -0.125f}})}}});
  const Json choice = Json::parse(line, "").at("response").at("body").at("choices").items().at(0);
  EXPECT_EQ(choice.at("text").as_string(), "\u00e9 hellohi");
  EXPECT_EQ(choice.at("logprobs").dump(),
            "{\"tokens\":[\"\uFFFD\",\"\uFFFD\",\" hello\",\"h\",\"i\"],"
            "\"token_logprobs\":[null,-3.0,-2.0,-0.5,-1.0],"
            "\"top_logprobs\":[null,{\"c\":-0.125,\"\uFFFD\":-3.0},{\"c\":-0.125,\" hello\":-2.0},"
            "{\"i\":-0.25,\"h\":-0.5},{\"i\":-1.0}],"
            "\"text_offset\":[0,0,1,7,8]}");
}

TEST(ResultLines, OfOpenAiChat) {
  RequestFiles files;
  files.defaults.encode_messages = [](const Json&) { return ids_of("ab"); };
  Output output = hi(Finish::max_new_tokens);
  output.logprobs = {logprobs_of('h', -0.5f, {{0xA9, -0.25f}}),
                     logprobs_of('i', -std::numeric_limits<float>::infinity())};
  const std::string line =
      answer(files, openai_line(R"({"messages": [], "logprobs": true, "top_logprobs": 1})", "/v1/chat/completions"),
             {{.outputs = {output}, .cached_tokens = 2}});
  EXPECT_EQ(Json::parse(line, "").at("response").at("body").dump(),
            R"({"id":"chatcmpl-)" + digits() +
                R"(","object":"chat.completion","created":0,"model":"tiny","choices":[{"index":0,)"
                R"("message":{"role":"assistant","content":"hi"},"logprobs":{"content":[)"
                R"({"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[)"
                "{\"token\":\"\uFFFD\",\"logprob\":-0.25,\"bytes\":null}]},"
                R"({"token":"i","logprob":-9999.0,"bytes":[105],"top_logprobs":[]}],"refusal":null},)"
                R"("finish_reason":"length"}],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,)"
                R"("prompt_tokens_details":{"cached_tokens":2}}})");
}

TEST(ResultLines, OfOpenAiLinesThatFailed) {
  EXPECT_EQ(answer(RequestFiles(), openai_line(R"({"prompt": ["ab", "c"]})"), {{.outputs = {hi()}}, failed()}),
            R"({"id":"batch_req_)" + digits() +
                R"(","custom_id":"a","response":null,"error":{"code":"not_finite",)"
                R"("message":"layer 2, row 5: a logit is not finite"}})");
}

TEST(ResultLines, HaveOtherIdsInOtherRunsAndLines) {
  const RequestFiles files;
  const RequestFile file =
      files.read(openai_line(R"({"prompt": "a"})") + "\n" + openai_line(R"({"prompt": "b"})", "/v1/completions", "b"));
  const std::vector<RequestResult> results = {{.outputs = {hi()}}};
  const auto id = [&](const std::string& identity, size_t number) {
    return Json::parse(ResultLines(file, files.tokenizer, identity).line(number, results), "").at("id").as_string();
  };
  EXPECT_EQ(id("x", 0), id("x", 0));
  EXPECT_NE(id("x", 0), id("x", 1));
  EXPECT_NE(id("x", 0), id("y", 0));
}

TEST(ResultLines, HaveTheirNumberWhenTheyAreFollowed) {
  EXPECT_EQ(with_index(7, R"({"custom_id":null})"), R"({"index":7,"custom_id":null})");
}

}  // namespace
}  // namespace tessera
