// Lines of OpenAI's batches: what of a body is read, what it defaults to, and what is refused by name.

#include <gmock/gmock.h>

#include "infer/draws.h"
#include "infer/request_files.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

const char* const kChat = "/v1/chat/completions";

/// Chat templates are not read yet: here contents stand one behind the other.
struct FilesWithMessages : RequestFiles {
  FilesWithMessages() {
    defaults.encode_messages = [](const Json& messages) {
      std::string text;
      for (const Json& message : messages.items()) text += message.at("content").as_string();
      return ids_of(text);
    };
  }
};

std::string refusal(const std::string& body, const std::string& url = "/v1/completions") {
  const std::string message = FilesWithMessages().fault(openai_line(body, url));
  const std::string place = "in.jsonl:1: ";
  EXPECT_EQ(message.substr(0, place.size()), place);
  return message.substr(std::min(place.size(), message.size()));
}

TEST(OpenAiLines, HaveTheirOwnDefaults) {
  FilesWithMessages files;
  files.defaults.request.max_tokens = 64;
  const Request completion = files.one(openai_line(R"({"model": "tiny", "prompt": "ab"})"));
  EXPECT_EQ(completion.sampling.temperature, 1);
  EXPECT_EQ(completion.max_tokens, 16);
  EXPECT_EQ(completion.n, 1);
  EXPECT_EQ(completion.adapter, "");
  EXPECT_EQ(completion.logprobs, -1);
  const Request chat = files.one(openai_line(R"({"messages": [{"role": "user", "content": "abc"}]})", kChat));
  EXPECT_EQ(chat.prompt, ids_of("abc"));
  EXPECT_EQ(chat.max_tokens, 61) << "to the end of the context";
  files.defaults.given = {"temperature", "max_new_tokens"};
  files.defaults.request.sampling.temperature = 0.5;
  for (const std::string& line : {openai_line(R"({"prompt": "ab"})"),
                                  openai_line(R"({"messages": [{"role": "user", "content": "abc"}]})", kChat)}) {
    EXPECT_EQ(files.one(line).sampling.temperature, 0.5);
    EXPECT_EQ(files.one(line).max_tokens, 64);
  }
}

TEST(OpenAiLines, ReadBodies) {
  const RequestFiles files;
  const RequestFile file = files.read(openai_line(
      R"({"model": "law", "prompt": "ab", "max_completion_tokens": 5, "n": 2, "best_of": 3, "temperature": 0.5, )"
      R"("top_p": 0.9, "seed": 4, "stop": ["x"], "logprobs": 2, "presence_penalty": 1, "frequency_penalty": -1, )"
      R"("logit_bias": {"7": -100}, "echo": true, "suffix": "", "response_format": {"type": "text"}, "user": "u", )"
      R"("metadata": {"a": 1}, "store": true, "service_tier": "auto", "stream": false, "tools": null, "top_k": 3})"));
  const Request& r = file.requests.at(0);
  EXPECT_EQ(r.adapter, "law");
  EXPECT_EQ(r.custom_id, "a");
  EXPECT_EQ(r.max_tokens, 5);
  EXPECT_EQ(r.n, 2);
  EXPECT_EQ(r.best_of, 3);
  EXPECT_EQ(r.seed, 4u);
  EXPECT_EQ(r.logprobs, 2);
  EXPECT_EQ(r.prompt_logprobs, 2) << "of an echo, the prompt's too";
  EXPECT_EQ(r.sampling.top_k, 3) << "our own names";
  EXPECT_THAT(r.sampling.logit_bias, ElementsAre(std::pair(7, -100.0)));
  EXPECT_THAT(r.stop_ids, ElementsAre(261));
  ASSERT_TRUE(file.lines[0].openai);
  EXPECT_TRUE(file.lines[0].openai->echo);
  EXPECT_EQ(file.lines[0].openai->model, "law");
  EXPECT_THAT(file.lines[0].openai->texts, ElementsAre("ab"));
}

TEST(OpenAiLines, HaveOnePromptOrSeveral) {
  const RequestFiles files;
  const auto prompts = [&](const std::string& prompt) {
    std::vector<std::vector<int32_t>> all;
    for (const Request& r : files.read(openai_line(R"({"prompt": )" + prompt + "}")).requests) all.push_back(r.prompt);
    return all;
  };
  EXPECT_THAT(prompts(R"("ab")"), ElementsAre(ids_of("ab")));
  EXPECT_THAT(prompts("[97, 98]"), ElementsAre(ids_of("ab")));
  EXPECT_THAT(prompts(R"(["ab", "c", "ab"])"), ElementsAre(ids_of("ab"), ids_of("c"), ids_of("ab")));
  EXPECT_THAT(prompts("[[97, 98], [99]]"), ElementsAre(ids_of("ab"), ids_of("c")));
  for (const char* other : {"[]", "7", R"(["a", 1])", R"(["a", [1]])", "{}"})
    EXPECT_THAT(refusal(fmt::format(R"({{"prompt": {}}})", other)), HasSubstr("expected")) << other;
  EXPECT_THAT(refusal(R"({"prompt": [[]]})"), HasSubstr("a prompt without tokens"));
  const RequestFile file = files.read(openai_line(R"({"prompt": ["ab", "ab"]})"));
  ASSERT_EQ(file.lines.size(), 1u) << "answered together";
  EXPECT_EQ(file.lines[0].count, 2u);
  EXPECT_EQ(file.requests[1].custom_id, "a/1");
  EXPECT_EQ(file.requests[1].seed, default_seed(7, "a/1")) << "equal prompts are continued otherwise";
}

TEST(OpenAiLines, SayLogprobsInTwoWays) {
  const FilesWithMessages files;
  const auto chat = [&](const std::string& more) {
    return files.one(openai_line(R"({"messages": [{"role": "user", "content": "a"}])" + more + "}", kChat)).logprobs;
  };
  EXPECT_EQ(chat(""), -1);
  EXPECT_EQ(chat(R"(, "logprobs": false)"), -1);
  EXPECT_EQ(chat(R"(, "logprobs": true)"), 0);
  EXPECT_EQ(chat(R"(, "logprobs": true, "top_logprobs": 3)"), 3);
  EXPECT_EQ(files.one(openai_line(R"({"prompt": "a", "logprobs": 0})")).logprobs, 0);
  EXPECT_THAT(refusal(R"({"messages": [{"content": "a"}], "top_logprobs": 3})", kChat),
              HasSubstr("\"top_logprobs\" goes with \"logprobs\" true"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "logprobs": true})"),
              HasSubstr("\"logprobs\" is true, expected a whole number"));
}

TEST(OpenAiLines, AreRefusedByNameForWhatIsNotOffered) {
  EXPECT_THAT(refusal(R"({"prompt": "a", "stream": true})"), HasSubstr("\"stream\" is true"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "tools": []})"), HasSubstr("\"tools\" are not offered"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "functions": []})"), HasSubstr("\"functions\" are not offered"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "suffix": "z"})"), HasSubstr("\"suffix\" is not offered"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "response_format": {"type": "json_object"}})"),
              HasSubstr("expected {\"type\": \"text\"}"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "temprature": 1})"), HasSubstr("did you mean \"temperature\"?"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "model": "gpt"})"),
              HasSubstr("the model \"gpt\" is unknown\n  known ones: tiny, base, law, tax"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "model": "law", "adapter": "tax"})"), HasSubstr("\"model\" is \"law\" and"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "max_tokens": 3, "max_completion_tokens": 4})"), HasSubstr("3 and 4"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "echo": true, "truncate_prompt_tokens": 4})"), HasSubstr("\"echo\""));
  EXPECT_THAT(refusal(R"({"prompt": "a", "prompt_logprobs": 1})"), HasSubstr("has no place in answers of OpenAI's"));
  EXPECT_THAT(refusal(R"({"messages": []})"), HasSubstr("\"messages\" belongs to /v1/chat/completions"));
  EXPECT_THAT(refusal(R"({"messages": [{"content": "a"}], "echo": true})", kChat),
              HasSubstr("belongs to /v1/completions"));
  EXPECT_THAT(refusal("{}"), HasSubstr("the body has no \"prompt\""));
  EXPECT_THAT(refusal("[]"), HasSubstr("\"body\" is [], expected an object"));
  EXPECT_THAT(refusal(R"({"prompt": "a"})", "/v1/embeddings"),
              HasSubstr("\"url\" is \"/v1/embeddings\", expected \"/v1/chat/completions\" or"));
}

TEST(OpenAiLines, HaveFourMembers) {
  const RequestFiles files;
  EXPECT_THAT(files.fault(R"({"method": "POST", "url": "/v1/completions", "body": {"prompt": "a"}})"),
              HasSubstr("the line has no \"custom_id\""));
  EXPECT_THAT(files.fault(R"({"custom_id": "a", "method": "GET", "url": "/v1/completions", "body": {"prompt": "a"}})"),
              HasSubstr("\"method\" is \"GET\", expected \"POST\""));
  EXPECT_THAT(files.fault(R"({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}, "n": 1})"),
              HasSubstr("options stand in the body"));
  EXPECT_THAT(files.fault(openai_line(R"({"prompt": "a"})") + "\n" + openai_line(R"({"prompt": "b"})")),
              HasSubstr("in.jsonl:2: the custom_id \"a\" is there twice"));
  EXPECT_THAT(files.fault(openai_line(R"({"prompt": "a"})") + "\n" + openai_line(R"({"prompt": ["b", "c"]})")),
              HasSubstr("in.jsonl:2: the custom_id \"a\" is there twice"));
}

TEST(OpenAiLines, SearchByBeamsWithoutATemperature) {
  RequestFiles files;
  EXPECT_EQ(files.one(openai_line(R"({"prompt": "a", "num_beams": 3})")).sampling.temperature, 0);
  EXPECT_EQ(files.one(openai_line(R"({"prompt": "a", "do_sample": false})")).sampling.temperature, 0);
  files.defaults.request.beams.width = 3;
  EXPECT_EQ(files.one(openai_line(R"({"prompt": "a"})")).sampling.temperature, 0);
  EXPECT_EQ(files.one(openai_line(R"({"prompt": "a", "num_beams": 1})")).sampling.temperature, 1);
}

TEST(OpenAiLines, WaitForChatTemplates) {
  EXPECT_THAT(RequestFiles().fault(openai_line(R"({"messages": [{"role": "user", "content": "a"}]})", kChat)),
              HasSubstr("\"messages\" are not read: they go through a chat template, and those are not read yet"));
}

TEST(OpenAiLines, ScoreAPromptByAnEcho) {
  const Request r =
      RequestFiles().one(openai_line(R"({"prompt": "abc", "max_tokens": 0, "echo": true, "logprobs": 1})"));
  EXPECT_EQ(r.score_from, 1);
  EXPECT_EQ(r.prompt_logprobs, 1);
}

}  // namespace
}  // namespace tessera
