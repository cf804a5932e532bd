// What makes a batch another one: every member of a request and of its line.

#include "infer/journal/run_identity.h"

#include <gtest/gtest.h>

#include "infer/request_files.h"

namespace tessera {
namespace {

using namespace test;

RequestFile file_of_one() { return RequestFiles().read(openai_line(R"({"prompt": "abc", "echo": true})")); }

TEST(BatchHash, IsThatOfTheSameRequestsAgain) {
  EXPECT_EQ(batch_hash(file_of_one()), batch_hash(file_of_one()));
  EXPECT_EQ(batch_hash(file_of_one()).size(), 64u);
}

TEST(BatchHash, ChangesWithEveryMember) {
  using Change = std::function<void(Request&)>;
  const std::vector<Change> changes = {
      [](Request& r) { r.custom_id += "x"; },
      [](Request& r) { r.prompt.push_back(1); },
      [](Request& r) { r.prompt[0] += 1; },
      [](Request& r) { r.adapter = "law"; },
      [](Request& r) { r.activation_offset = 1; },
      [](Request& r) { r.cache_salt = "s"; },
      [](Request& r) { r.sampling.temperature = 0.5; },
      [](Request& r) { r.sampling.top_k = 5; },
      [](Request& r) { r.sampling.top_p = 0.5; },
      [](Request& r) { r.sampling.min_p = 0.5; },
      [](Request& r) { r.sampling.typical_p = 0.5; },
      [](Request& r) { r.sampling.repetition_penalty = 1.5; },
      [](Request& r) { r.sampling.presence_penalty = 0.5; },
      [](Request& r) { r.sampling.frequency_penalty = 0.5; },
      [](Request& r) { r.sampling.no_repeat_ngram_size = 2; },
      [](Request& r) { r.sampling.min_tokens = 2; },
      [](Request& r) {
        r.sampling.logit_bias = {{1, 2.0}};
      },
      [](Request& r) {
        r.sampling.logit_bias = {{1, 3.0}};
      },
      [](Request& r) { r.sampling.allowed_token_ids = std::vector<int32_t>{1}; },
      [](Request& r) { r.sampling.allowed_token_ids = std::vector<int32_t>{}; },
      [](Request& r) {
        r.sampling.bad_words = {{1, 2}};
      },
      [](Request& r) {
        r.sampling.bad_words = {{1}, {2}};
      },
      [](Request& r) { r.beams.width = 2; },
      [](Request& r) { r.beams.length_penalty = 2; },
      [](Request& r) { r.beams.early_stopping = EarlyStopping::never; },
      [](Request& r) { r.n = 2; },
      [](Request& r) { r.best_of = 2; },
      [](Request& r) { r.max_tokens = 2; },
      [](Request& r) { r.score_from = 1; },
      [](Request& r) { r.stop_ids = {3}; },
      [](Request& r) { r.stop = {"ab"}; },
      [](Request& r) {
        r.stop = {"a", "b"};
      },
      [](Request& r) { r.include_stop_str_in_output = true; },
      [](Request& r) { r.skip_special_tokens = false; },
      [](Request& r) { r.logprobs = 3; },
      [](Request& r) { r.prompt_logprobs = 3; },
      [](Request& r) { r.seed += 1; },
  };
  std::set<std::string> hashes = {batch_hash(file_of_one())};
  for (const Change& change : changes) {
    RequestFile file = file_of_one();
    change(file.requests[0]);
    EXPECT_TRUE(hashes.insert(batch_hash(file)).second) << "change " << &change - changes.data();
  }
  using LineChange = std::function<void(RequestFile&)>;
  const std::vector<LineChange> of_lines = {
      [](RequestFile& f) { f.kind = RequestKind::batch; },
      [](RequestFile& f) { f.lines[0].custom_id = "b"; },
      [](RequestFile& f) { f.lines[0].example.prompt = "b"; },
      [](RequestFile& f) { f.lines[0].example.completion = "b"; },
      [](RequestFile& f) { f.lines[0].openai->is_chat = true; },
      [](RequestFile& f) { f.lines[0].openai->echo = false; },
      [](RequestFile& f) { f.lines[0].openai->model = "law"; },
      [](RequestFile& f) { f.lines[0].openai->texts = {"b"}; },
      [](RequestFile& f) { f.lines[0].openai.reset(); },
      [](RequestFile& f) { f.lines.push_back(f.lines[0]); },
  };
  for (const LineChange& change : of_lines) {
    RequestFile file = file_of_one();
    change(file);
    EXPECT_TRUE(hashes.insert(batch_hash(file)).second) << "change of a line " << &change - of_lines.data();
  }
}

TEST(BatchHash, HangsOnTheOrder) {
  const RequestFiles files;
  const std::string a = R"({"custom_id": "a", "prompt": "x"})", b = R"({"custom_id": "b", "prompt": "x"})";
  EXPECT_NE(batch_hash(files.read(a + "\n" + b)), batch_hash(files.read(b + "\n" + a)));
}

TEST(BatchHash, DoesNotHangOnHowALineSaysIt) {
  const RequestFiles files;
  EXPECT_EQ(batch_hash(files.read(R"({"custom_id": "a", "prompt": "ab", "max_tokens": 64, "temperature": 0.0})")),
            batch_hash(files.read("\n"
                                  R"({"temperature": 0, "prompt_token_ids": [97, 98], "custom_id": "a"})")));
}

TEST(RunIdentities, ComeBackFromTheirJson) {
  const RunIdentity identity = {.batch = "b",
                                .requests = 3,
                                .model = {{"base", "1"}},
                                .adapters = {{"a", "2"}},
                                .options = {{"kv_dtype", "f32"}}};
  const RunIdentity again = run_identity_of(Json::parse(to_json(identity).dump(), ""));
  EXPECT_EQ(again.hex(), identity.hex());
  EXPECT_EQ(identity_differences(identity, again), "");
  RunIdentity other = identity;
  other.requests = 4;
  EXPECT_NE(other.hex(), identity.hex());
  EXPECT_EQ(identity_differences(identity, other), "requests was 3, now 4\n");
}

}  // namespace
}  // namespace tessera
