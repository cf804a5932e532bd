// Batch lines: every option by its name, what it may be, and what goes together.

#include <gmock/gmock.h>

#include "infer/request_files.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

/// The request of a line with a prompt and these members.
Request with(std::string members) {
  std::ranges::replace(members, '\n', ' ');
  return RequestFiles().one(R"({"prompt": "abc", )" + members + "}", "batch");
}

/// Why a line with a prompt and these members is refused.
std::string refusal(const std::string& members) {
  const std::string message = RequestFiles().fault(R"({"prompt": "abc", )" + members + "}", "batch");
  const std::string place = "in.jsonl:1: ";
  EXPECT_EQ(message.substr(0, place.size()), place);
  return message.substr(std::min(place.size(), message.size()));
}

TEST(BatchLines, ReadEveryOption) {
  const Request r = with(R"("custom_id": "x", "n": 2, "best_of": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 40,
    "min_p": 0.05, "typical_p": 0.95, "repetition_penalty": 1.1, "presence_penalty": -0.5, "frequency_penalty": 2,
    "no_repeat_ngram_size": 3, "logit_bias": {"65": -1.5, "7": 3}, "allowed_token_ids": [9, 66, 65, 66],
    "stop": ["END", "\n"], "stop_token_ids": [10, 3], "max_tokens": 12, "min_tokens": 4, "seed": 99, "logprobs": 5,
    "prompt_logprobs": 0, "skip_special_tokens": false, "include_stop_str_in_output": true, "adapter": "law",
    "activation_offset": 2, "cache_salt": "s")");
  EXPECT_EQ(r.custom_id, "x");
  EXPECT_EQ(r.n, 2);
  EXPECT_EQ(r.best_of, 3);
  EXPECT_EQ(r.sampling.temperature, 0.5);
  EXPECT_EQ(r.sampling.top_p, 0.9);
  EXPECT_EQ(r.sampling.top_k, 40);
  EXPECT_EQ(r.sampling.min_p, 0.05);
  EXPECT_EQ(r.sampling.typical_p, 0.95);
  EXPECT_EQ(r.sampling.repetition_penalty, 1.1);
  EXPECT_EQ(r.sampling.presence_penalty, -0.5);
  EXPECT_EQ(r.sampling.frequency_penalty, 2);
  EXPECT_EQ(r.sampling.no_repeat_ngram_size, 3);
  EXPECT_THAT(r.sampling.logit_bias, ElementsAre(std::pair(7, 3.0), std::pair(65, -1.5)));
  EXPECT_THAT(*r.sampling.allowed_token_ids, ElementsAre(9, 65, 66));
  EXPECT_THAT(r.stop, ElementsAre("END", "\n"));
  EXPECT_THAT(r.stop_ids, ElementsAre(3, 10, 261));
  EXPECT_EQ(r.max_tokens, 12);
  EXPECT_EQ(r.sampling.min_tokens, 4);
  EXPECT_EQ(r.seed, 99u);
  EXPECT_EQ(r.logprobs, 5);
  EXPECT_EQ(r.prompt_logprobs, 0);
  EXPECT_FALSE(r.skip_special_tokens);
  EXPECT_TRUE(r.include_stop_str_in_output);
  EXPECT_EQ(r.adapter, "law");
  EXPECT_EQ(r.activation_offset, 2);
  EXPECT_EQ(r.cache_salt, "s");
}

TEST(BatchLines, LeaveWhatTheyDoNotSayToTheRecipe) {
  RequestFiles files;
  files.defaults.request.sampling.temperature = 0.7;
  files.defaults.request.logprobs = 2;
  files.defaults.request.adapter = "tax";
  files.defaults.request.stop = {"."};
  const Request plain = files.one(R"({"custom_id": "x", "prompt": "a", "top_k": null})");
  EXPECT_EQ(plain.sampling.temperature, 0.7);
  EXPECT_EQ(plain.adapter, "tax");
  EXPECT_THAT(plain.stop, ElementsAre("."));
  const Request own = files.one(R"({"prompt": "a", "temperature": 0, "logprobs": -1, "adapter": "base", "stop": "!"})");
  EXPECT_EQ(own.sampling.temperature, 0);
  EXPECT_EQ(own.logprobs, -1);
  EXPECT_EQ(own.adapter, "base");
  EXPECT_THAT(own.stop, ElementsAre("!"));
}

TEST(BatchLines, KnowEndsOfATextByName) {
  EXPECT_THAT(with(R"("ignore_eos": true)").stop_ids, ElementsAre());
  EXPECT_THAT(with(R"("ignore_eos": true, "stop_token_ids": [5])").stop_ids, ElementsAre(5));
  EXPECT_THAT(with(R"("eos_token_id": 9)").stop_ids, ElementsAre(9));
  EXPECT_THAT(with(R"("eos_token_id": [9, 8, 9])").stop_ids, ElementsAre(8, 9));
  EXPECT_THAT(with(R"("stop_token_ids": [261])").stop_ids, ElementsAre(261));
}

TEST(BatchLines, KnowNamesOfOtherProgramsAndTellThem) {
  EXPECT_EQ(with(R"("max_new_tokens": 5)").max_tokens, 5);
  EXPECT_EQ(with(R"("num_return_sequences": 3)").n, 3);
  EXPECT_EQ(with(R"("do_sample": true)").sampling.temperature, 1);
  EXPECT_EQ(with(R"("do_sample": true, "temperature": 0.3)").sampling.temperature, 0.3);
  EXPECT_EQ(with(R"("do_sample": false)").sampling.temperature, 0);
  const Request beams = with(R"("num_beams": 4, "n": 2, "length_penalty": -0.5, "early_stopping": "never",
                                "pad_token_id": 0)");
  EXPECT_EQ(beams.beams.width, 4);
  EXPECT_EQ(beams.beams.length_penalty, -0.5);
  EXPECT_EQ(beams.beams.early_stopping, EarlyStopping::never);
  EXPECT_EQ(with(R"("early_stopping": true)").beams.early_stopping, EarlyStopping::yes);
  const RequestFile file = RequestFiles().read(R"({"prompt": "a", "num_return_sequences": 1, "pad_token_id": 3})");
  ASSERT_EQ(file.notices.size(), 2u);
  EXPECT_THAT(file.notices[0], testing::EndsWith("in.jsonl: \"num_return_sequences\" is read as \"n\""));
  EXPECT_THAT(file.notices[1], testing::EndsWith("\"pad_token_id\" has no effect: nothing is padded"));
}

TEST(BatchLines, RefuseUnknownAndRepeatedNames) {
  EXPECT_EQ(refusal(R"("temprature": 1)"), "the name \"temprature\" is unknown\n  did you mean \"temperature\"?");
  EXPECT_EQ(refusal(R"("xyzzy": null)"), "the name \"xyzzy\" is unknown") << "also when it says nothing";
  EXPECT_THAT(refusal(R"("seed": 1, "seed": 1)"), HasSubstr("the key \"seed\" appears twice in one object"));
  EXPECT_THAT(refusal(R"("logit_bias": {"1": 1, "1": 2})"), HasSubstr("the key \"1\" appears twice"));
  EXPECT_THAT(refusal(R"("logit_bias": {"1": 1, "01": 2})"), HasSubstr("\"logit_bias\" has the token id 1 twice"));
  EXPECT_EQ(refusal(R"("max_tokens": 5, "max_new_tokens": 6)"),
            "\"max_tokens\" and \"max_new_tokens\" are two names of one option and differ: 5 and 6\n"
            "  leave one of them out");
  EXPECT_EQ(with(R"("max_tokens": 5, "max_new_tokens": 5)").max_tokens, 5);
}

TEST(BatchLines, RefuseValuesOfOtherTypesAndOutOfRange) {
  EXPECT_EQ(refusal(R"("temperature": "hot")"), "\"temperature\" is \"hot\", expected a number of at least 0");
  EXPECT_EQ(refusal(R"("temperature": -0.5)"), "\"temperature\" is -0.5, expected a number of at least 0");
  EXPECT_EQ(refusal(R"("top_p": 1.5)"), "\"top_p\" is 1.5, expected a number from 0 to 1");
  EXPECT_EQ(refusal(R"("typical_p": 0)"), "\"typical_p\" is 0, expected a number above 0 and at most 1");
  EXPECT_EQ(refusal(R"("repetition_penalty": 11)"), "\"repetition_penalty\" is 11, expected a number from 0.001 to 10");
  EXPECT_EQ(refusal(R"("presence_penalty": 3)"), "\"presence_penalty\" is 3, expected a number from -2 to 2");
  EXPECT_EQ(refusal(R"("n": 0)"), "\"n\" is 0, expected a whole number from 1 to 1024");
  EXPECT_EQ(refusal(R"("n": 1.5)"), "\"n\" is 1.5, expected a whole number from 1 to 1024");
  EXPECT_EQ(refusal(R"("num_return_sequences": 0)"),
            "\"num_return_sequences\" is 0, expected a whole number from 1 to 1024")
      << "by the name that the line gives it";
  EXPECT_EQ(refusal(R"("seed": -1)"), "\"seed\" is -1, expected a whole number from 0 to 2^63 - 1");
  EXPECT_THAT(refusal(R"("seed": 18446744073709551615)"), HasSubstr("expected a whole number from 0 to 2^63 - 1"));
  EXPECT_EQ(refusal(R"("ignore_eos": 1)"), "\"ignore_eos\" is 1, expected true or false");
  EXPECT_EQ(refusal(R"("stop": "")"), "\"stop\" is \"\", expected a text or a list of texts, none of them empty");
  EXPECT_EQ(refusal(R"("stop": ["a", ""])"),
            "\"stop\" is [\"a\",\"\"], expected a text or a list of texts, none of them empty");
  EXPECT_EQ(refusal(R"("logprobs": 65)"), "\"logprobs\" is 65, expected a whole number from -1 to 64");
  EXPECT_EQ(refusal(R"("logit_bias": {"262": 1})"),
            "\"logit_bias\" has the key \"262\", expected an object of token ids from 0 to 261 with their biases");
  EXPECT_THAT(refusal(R"("logit_bias": {"a": 1})"), HasSubstr("has the key \"a\""));
  EXPECT_THAT(refusal(R"("logit_bias": {"1": "x"})"), HasSubstr("\"logit_bias.1\" is \"x\", expected a number"));
  EXPECT_EQ(refusal(R"("allowed_token_ids": [])"), "\"allowed_token_ids\" is empty: no token is allowed");
  EXPECT_EQ(refusal(R"("stop_token_ids": [262])"),
            "\"stop_token_ids\" has the token id 262, and the vocabulary has ids from 0 to 261");
  EXPECT_EQ(refusal(R"("early_stopping": "maybe")"),
            "\"early_stopping\" is \"maybe\", expected true, false or \"never\"");
  EXPECT_EQ(refusal(R"("adapter": "lex")"), "the adapter \"lex\" is unknown\n  known ones: base, law, tax");
  EXPECT_EQ(refusal(R"("custom_id": 7)"), "\"custom_id\" is 7, expected a text that is not empty");
  EXPECT_EQ(refusal(R"("truncate_prompt_tokens": 0)"),
            "\"truncate_prompt_tokens\" is 0, expected a whole number from 1 to 2^63 - 1");
}

TEST(BatchLines, RefuseWhatDoesNotGoTogether) {
  EXPECT_EQ(refusal(R"("n": 3, "best_of": 2)"), "\"best_of\" is 2 and \"n\" 3: best_of is at least n");
  EXPECT_THAT(refusal(R"("num_beams": 4, "temperature": 0.5)"), HasSubstr("beams are searched without draws"));
  EXPECT_THAT(refusal(R"("num_beams": 4, "best_of": 2)"), HasSubstr("\"num_beams\" and \"best_of\""));
  EXPECT_THAT(refusal(R"("num_beams": 2, "n": 3)"), HasSubstr("no more answers than beams"));
  EXPECT_THAT(refusal(R"("do_sample": false, "temperature": 0.5)"), HasSubstr("\"do_sample\" is false"));
  EXPECT_THAT(refusal(R"("do_sample": true, "temperature": 0)"), HasSubstr("\"do_sample\" is true"));
  EXPECT_THAT(refusal(R"("min_tokens": 6, "max_tokens": 5)"), HasSubstr("there can be no more tokens"));
  const std::string banned = "no token is allowed: bad_words and min_tokens ban all of them";
  EXPECT_EQ(refusal(R"("allowed_token_ids": [97], "bad_words": ["a"])"), banned);
  EXPECT_EQ(refusal(R"("allowed_token_ids": [261], "min_tokens": 1)"), banned);
  EXPECT_EQ(with(R"("allowed_token_ids": [261])").stop_ids.size(), 1u) << "it ends at once";
}

TEST(BatchLines, OfScoresAloneAskForNothingElse) {
  EXPECT_EQ(with(R"("max_tokens": 0)").score_from, 1);
  EXPECT_EQ(with(R"("max_tokens": 0, "score_from": 2)").score_from, 2);
  EXPECT_EQ(refusal(R"("max_tokens": 0, "score_from": 3)"),
            "\"score_from\" is 3, expected a whole number from 1 to 2: the prompt has 3 tokens");
  EXPECT_THAT(refusal(R"("max_tokens": 0, "score_from": 0)"), HasSubstr("\"score_from\" is 0"));
  EXPECT_THAT(refusal(R"("score_from": 1)"), HasSubstr("\"score_from\" goes with \"max_tokens\" 0, which is 64"));
  for (const char* more : {R"("n": 2)", R"("best_of": 2)", R"("num_beams": 2)"})
    EXPECT_THAT(refusal(std::string(R"("max_tokens": 0, )") + more), HasSubstr("which scores the prompt")) << more;
  EXPECT_THAT(RequestFiles().fault(R"({"prompt": "a", "max_tokens": 0})"),
              HasSubstr("its first token has none before"));
  EXPECT_EQ(with(R"("max_tokens": 0, "min_tokens": 3)").sampling.min_tokens, 3) << "nothing is drawn";
  RequestFiles files;
  files.defaults.request.max_tokens = 0;
  EXPECT_EQ(files.read("abc").requests[0].score_from, 1) << "by the recipe";
}

TEST(BatchLines, TakePromptsAsTextOrTokens) {
  const RequestFiles files;
  EXPECT_EQ(files.one(R"({"prompt_token_ids": [3, 0, 261]})").prompt, (std::vector<int32_t>{3, 0, 261}));
  EXPECT_EQ(files.one(R"({"custom_id": "x", "prompt": "<|end|>"})").prompt, ids_of("<|end|>")) << "text is plain";
  EXPECT_THAT(files.fault(R"({"prompt_token_ids": [262]})"), HasSubstr("has the token id 262"));
  EXPECT_THAT(files.fault(R"({"prompt_token_ids": [-1]})"), HasSubstr("has the token id -1"));
  EXPECT_THAT(files.fault(R"({"prompt_token_ids": [1.0]})"), HasSubstr("expected a list of token ids from 0 to 261"));
  EXPECT_THAT(files.fault(R"({"prompt_token_ids": []})"), HasSubstr("\"prompt_token_ids\" is empty"));
  EXPECT_THAT(files.fault(R"({"custom_id": "x", "prompt": [1]})"), HasSubstr("given as \"prompt_token_ids\""));
  EXPECT_THAT(files.fault(R"({"custom_id": "x", "prompt": ""})"), HasSubstr("the prompt has no tokens"));
  EXPECT_THAT(files.fault(R"({"custom_id": "x"})"), HasSubstr("the line has no prompt"));
  EXPECT_THAT(files.fault(R"({"custom_id": "x", "prompt": "a", "prompt_token_ids": [1]})"),
              HasSubstr("the line has both \"prompt\" and \"prompt_token_ids\""));
  EXPECT_THAT(files.fault(R"({"custom_id": "x", "messages": [{"role": "user", "content": "a"}]})"),
              HasSubstr("\"messages\" are not read"));
}

TEST(BatchLines, GiveAnEmptyPromptTheBeginOfAText) {
  RequestFiles files;
  files.tokenizer = load(sentence_piece());
  EXPECT_EQ(files.one(R"({"custom_id": "x", "prompt": ""})").prompt, (std::vector<int32_t>{1}));
}

TEST(BatchLines, RefuseTokensThatTheModelDoesNotHave) {
  RequestFiles files;
  files.defaults.vocab_size = 100;
  EXPECT_THAT(files.fault(R"({"custom_id": "x", "prompt": "az"})", "batch"),
              HasSubstr("the prompt has the token id 122 (\"z\"), and the model's vocabulary has ids from 0 to 99"));
}

TEST(BatchLines, TruncateFromTheFrontOrRefuse) {
  RequestFiles files;
  files.defaults.max_position = 4;
  EXPECT_EQ(files.one(R"({"custom_id": "x", "prompt": "abc"})").prompt, ids_of("abc"));
  EXPECT_EQ(files.fault(R"({"custom_id": "x", "prompt": "abcd"})"),
            "in.jsonl:1: the prompt has 4 tokens, and the context 4, one of which is a new token's\n"
            "  shorten it, or set truncate_prompt_tokens: so many of its last tokens stay");
  EXPECT_EQ(files.one(R"({"prompt": "abcd", "max_tokens": 0})").prompt, ids_of("abcd")) << "nothing follows";
  EXPECT_EQ(files.one(R"({"prompt": "abcde", "truncate_prompt_tokens": 2})").prompt, ids_of("de"));
  EXPECT_EQ(files.one(R"({"prompt": "ab", "truncate_prompt_tokens": 3})").prompt, ids_of("ab"));
  EXPECT_THAT(files.fault(R"({"prompt": "ab", "activation_offset": 3})"),
              HasSubstr("\"activation_offset\" is 3, and the prompt has 2 tokens"));
}

TEST(BatchLines, MakeARequestOfEachContext) {
  const RequestFiles files;
  const RequestFile file =
      files.read(R"({"custom_id": "x", "prefix": "ab", "contexts": ["c", "", "hello"], "max_tokens": 3})");
  ASSERT_EQ(file.requests.size(), 3u);
  EXPECT_EQ(file.requests[0].prompt, ids_of("abc"));
  EXPECT_EQ(file.requests[1].prompt, ids_of("ab"));
  EXPECT_EQ(file.requests[2].prompt, (std::vector<int32_t>{'a', 'b', 259}));
  EXPECT_EQ(file.requests[2].custom_id, "x/2");
  EXPECT_EQ(file.requests[2].max_tokens, 3);
  EXPECT_EQ(file.lines[1].custom_id, "x/1");
  EXPECT_EQ(file.lines[1].prefix_tokens, 2);
  EXPECT_EQ(file.lines[2].first, 2u);
  EXPECT_THAT(files.fault(R"({"prefix": "a"})"), HasSubstr("\"prefix\" and \"contexts\" go together"));
  EXPECT_THAT(files.fault(R"({"custom_id": "x", "prompt": "a", "contexts": ["b"]})"), HasSubstr("go together"));
  EXPECT_THAT(files.fault(R"({"prefix": "a", "contexts": []})"), HasSubstr("expected a list of texts"));
  EXPECT_THAT(files.fault(R"({"prefix": "a", "contexts": ["b"], "truncate_prompt_tokens": 1})"),
              HasSubstr("would cut into the \"prefix\""));
}

TEST(BatchLines, HaveEachNumberOnce) {
  const RequestFiles files;
  EXPECT_EQ(files.fault("{\"custom_id\": \"x\", \"prompt\": \"a\"}\n{\"custom_id\": \"x\", \"prompt\": \"b\"}"),
            "in.jsonl:2: the custom_id \"x\" is there twice\n  give each request its own");
  EXPECT_THAT(files.fault("{\"custom_id\": \"x/0\", \"prompt\": \"a\"}\n"
                          "{\"custom_id\": \"x\", \"prefix\": \"b\", \"contexts\": [\"c\"]}"),
              HasSubstr("the custom_id \"x/0\" is there twice"));
  EXPECT_THAT(files.fault("{\"custom_id\": \"x\", \"prompt\": \"a\"}\n"
                          "{\"custom_id\": \"x\", \"prefix\": \"b\", \"contexts\": [\"c\"]}"),
              HasSubstr("the custom_id \"x\" is there twice"));
}

TEST(BadWords, AreSpelledWithALeadingSpaceAndWithout) {
  EXPECT_THAT(with(R"("bad_words": ["hello"])").sampling.bad_words, ElementsAre(ElementsAre(259), ElementsAre(260)));
  EXPECT_THAT(with(R"("bad_words": [" hello"])").sampling.bad_words, ElementsAre(ElementsAre(259), ElementsAre(260)));
  EXPECT_THAT(with(R"("bad_words": "hi")").sampling.bad_words,
              ElementsAre(ElementsAre('h', 'i'), ElementsAre(' ', 'h', 'i')));
  EXPECT_THAT(with(R"("bad_words": ["<|end|>"])").sampling.bad_words,
              ElementsAre(ElementsAre(261), ElementsAre(' ', 261)));
  RequestFiles files;
  files.tokenizer = load(sentence_piece());
  files.defaults.vocab_size = 264;
  EXPECT_THAT(files.one(R"({"prompt": "a", "bad_words": ["ab"]})").sampling.bad_words,
              ElementsAre(ElementsAre(262), ElementsAre(263)))
      << "without the space that the tokenizer puts in front of a text";
}

TEST(BadWords, HaveTokens) {
  RequestFiles files;
  files.tokenizer = load(words({"?", "a", "b"}, R"({"pre_tokenizer": {"type": "WhitespaceSplit"}})"));
  files.defaults.vocab_size = 3;
  files.defaults.eos = {};
  EXPECT_EQ(files.fault(R"({"prompt": "a", "bad_words": ["c"]})"),
            "in.jsonl:1: \"bad_words\" has \"c\", for which the tokenizer has no tokens");
  EXPECT_THAT(files.one(R"({"prompt": "a", "bad_words": ["b"]})").sampling.bad_words, ElementsAre(ElementsAre(2)));
}

}  // namespace
}  // namespace tessera
