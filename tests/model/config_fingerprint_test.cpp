#include "model/config_fingerprint.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/tiny_model.h"

namespace tessera {
namespace {

std::string fingerprint(const std::string& more, const std::string& spaces = " ") {
  const std::string text = R"({"hidden_size": 32,"model_type": "llama","vocab_size": 64,"intermediate_size": 64,)" +
                           spaces + R"("num_hidden_layers": 2,"num_attention_heads": 4)" + more + "}";
  return config_fingerprint(parse_model_config(Json::parse(text, "config.json"), "config.json"));
}

TEST(ConfigFingerprint, ChangesWithEveryNumberThatTheArithmeticReads) {
  const std::string llama3 = R"("rope_type": "llama3", "low_freq_factor": 1, "high_freq_factor": 4)";
  std::vector<std::string> all;
  for (const std::string& more : std::vector<std::string>{
           "", R"(, "rope_theta": 500000.0)", R"(, "rms_norm_eps": 1e-5)", R"(, "num_key_value_heads": 2)",
           R"(, "head_dim": 16)", R"(, "tie_word_embeddings": true)",
           R"(, "rope_scaling": {"factor": 8, )" + llama3 + "}", R"(, "rope_scaling": {"factor": 4, )" + llama3 + "}",
           R"(, "rope_scaling": {"factor": 8, "original_max_position_embeddings": 4096, )" + llama3 + "}"}) {
    const std::string found = fingerprint(more);
    EXPECT_EQ(std::count(all.begin(), all.end(), found), 0) << more;
    all.push_back(found);
  }
}

TEST(ConfigFingerprint, IsOfNumbersAndNotOfTheText) {
  const std::string plain = fingerprint("");
  EXPECT_EQ(fingerprint("", "\n\n"), plain);
  for (const char* more :
       {R"(, "rope_theta": 10000)", R"(, "rope_theta": 1e4)", R"(, "head_dim": 8)", R"(, "num_key_value_heads": 4)",
        R"(, "rms_norm_eps": 0.000001)", R"(, "torch_dtype": "bfloat16")", R"(, "initializer_range": 0.5)",
        R"(, "max_position_embeddings": 77)", R"(, "rope_scaling": {"rope_type": "default"})",
        R"(, "architectures": ["LlamaForCausalLM"])"})
    EXPECT_EQ(fingerprint(more), plain) << more;
}

TEST(ConfigNumbers, ThatDifferAreToldWithBothValues) {
  const Json json = test::to_json({.layers = 2}).set("model_type", "mistral").set("sliding_window", 5);
  const Json numbers = config_numbers(parse_model_config(json, "config.json"));
  const auto changed = [&](const Json& other) {
    return changed_numbers(numbers, config_numbers(parse_model_config(other, "config.json")));
  };
  EXPECT_EQ(changed(json), "");
  EXPECT_EQ(changed(Json(json).set("sliding_window", 7)), "windows by layer (0: none) was [5,5] and is [7,7]");
  EXPECT_EQ(changed(Json(json).set("rms_norm_eps", 1e-6).set("num_key_value_heads", 4)),
            "num_key_value_heads was 2 and is 4, rms_norm_eps was 1e-05 and is 1e-06");
  EXPECT_EQ(changed(Json(json).set("sliding_window", Json())),
            "windows by layer (0: none) was [5,5] and is not there, rotary layers was [true,true] and is not there");
}

}  // namespace
}  // namespace tessera
