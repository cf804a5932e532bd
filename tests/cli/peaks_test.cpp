// A plan is what the job takes: compared with the peak of the program itself, from 100 MB on.

#include <gtest/gtest.h>

#include "support/peak_memory.h"
#include "support/random_seed.h"
#include "support/workbench.h"

namespace tessera {
namespace {

using Words = std::vector<std::string>;

struct Row {
  std::string name;
  Words keys;
  std::string after{};  // the row whose results the job works with
  bool quick = false;
  int layers = 4, ranks = 1;
  friend void PrintTo(const Row& row, std::ostream* out) { *out << row.name; }
};

Words joined(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const Words kLora = {"adapter.method=lora", "adapter.rank=8", "train.sequence_length=512"};
const Words kSpsa = {"train.estimator=spsa", "spsa.probes=1"};
const Words kWide = {"train.batch=4", "train.micro_batch=4"};

Words shared(const std::string& method, const Words& keys) { return joined({"sharing.method=" + method}, keys); }

const std::vector<Row>& rows() {
  static const std::vector<Row> all = {
      {"full_adamw", {}, "", true},
      {"full_of_two_ranks", {"train.batch=2"}, "", true, 4, 2},
      {"full_momentum", {"optimizer.name=sgd"}},
      {"full_sgd", {"optimizer.name=sgd", "optimizer.momentum=0"}},
      {"full_to_bf16", {"optimizer.name=sgd", "optimizer.momentum=0", "model.dtype=bf16"}},
      {"full_evaluate", joined({"job=evaluate", "train.sequence_length=1024"}, kWide), "full_adamw"},
      {"lora", kLora},
      {"lora_run_again", joined(joined(kLora, kWide), {"train.checkpoint_activations=true"})},
      {"lora_evaluate", joined(joined(kLora, kWide), {"job=evaluate"}), "lora"},
      {"lora_generate", joined(kLora, {"job=generate", "generate.max_new_tokens=200"}), "lora"},
      {"lora_export", joined(kLora, {"job=export", "export.merged=true", "export.peft=true"}), "lora"},
      {"mos", {"adapter.method=mos", "train.sequence_length=512"}},
      {"mos_large", joined({"adapter.method=mos", "adapter.equivalent_rank=64", "adapter.rank=128"}, {})},
      {"rps", shared("rps", {"sharing.compression=2"})},
      {"rps_hashed", shared("rps", {"sharing.compression=1.5", "sharing.mapper=hashed"}), "", true, 1},
      {"rps_hashed_evaluate",
       shared("rps",
              {"sharing.compression=1.5", "sharing.mapper=hashed", "job=evaluate", "train.sequence_length=2048"}),
       "rps_hashed", false, 1},
      {"rps_tiles", shared("rps", {"sharing.compression=2", "sharing.mapper=roast-tile"})},
      {"rps_plain_cells", shared("rps", {"sharing.compression=1.5", "sharing.mapper=hashed", "sharing.precond=none"})},
      {"rps_merged", shared("rps", {"sharing.compression=2", "export.merged=true", "optimizer.name=sgd"})},
      {"depth", shared("depth", {"sharing.blocks=2"})},
      {"magnitude", shared("magnitude", {"sharing.compression=2"})},
      {"spsa_adamw", kSpsa, "", true},
      {"spsa_momentum", joined(kSpsa, {"optimizer.name=sgd", "optimizer.momentum=0.9"})},
      {"spsa_sgd_copies", joined(kSpsa, {"optimizer.name=sgd", "spsa.perturb=copies"})},
      {"spsa_pool", joined(kSpsa, {"optimizer.name=sgd", "spsa.directions=pool", "spsa.pool_size=16"})},
      {"spsa_rps", joined(kSpsa, shared("rps", {"sharing.compression=1.2"}))},
      {"spsa_replay", joined(kSpsa, {"job=replay"}), "spsa_adamw"},
  };
  return all;
}

class PlannedPeaks : public test::Workbench, public testing::WithParamInterface<Row> {
 protected:
  void write_model(int layers, int width) {
    test::write_file(*this / "base/config.json", Json::object()
                                                     .set("model_type", "llama")
                                                     .set("vocab_size", int64_t{256})
                                                     .set("hidden_size", int64_t{width})
                                                     .set("intermediate_size", int64_t{width * 11 / 4})
                                                     .set("num_hidden_layers", int64_t{layers})
                                                     .set("num_attention_heads", int64_t{8})
                                                     .set("num_key_value_heads", int64_t{8})
                                                     .set("head_dim", int64_t{width / 8})
                                                     .set("rms_norm_eps", 1e-5)
                                                     .set("initializer_range", 0.02)
                                                     .set("tie_word_embeddings", true)
                                                     .set("torch_dtype", "float32")
                                                     .dump());
  }
  static Words command(const Words& keys, const std::string& run) {
    return joined(
        {"full.toml", "train.steps=2", "train.batch=1", "optimizer.lr=1e-5", "evaluate.rows=2", "run.dir=" + run},
        keys);
  }
  test::Command started(const Words& words) const {
    return GetParam().ranks > 1 ? ranks(GetParam().ranks, words) : trainer(words);
  }
  /// Of the program itself, on a model of no size.
  int64_t without_a_model() {
    write_model(1, 32);
    return test::peak_of(started(command({"train.batch=2"}, "small"))).bytes;
  }
};

TEST_P(PlannedPeaks, AreThoseOfTheRun) {
  const Row& row = GetParam();
  if (!row.quick && !test::tests_are_long()) GTEST_SKIP() << "with TESSERA_LONG=1";
  if (row.ranks > 1) TESSERA_NEEDS_MPI();
  const int64_t program = without_a_model();
  write_model(row.layers, 512);
  std::string run = row.name;
  for (const Row& before : rows())
    if (before.name == row.after) expect_done(trainer(command(before.keys, run = before.name)));
  const Words words = command(row.keys, run);
  const Json plan = Json::parse(expect_done(started(joined(words, {"--check", "--json"}))).out, "plan");
  const test::Peak peak = test::peak_of(started(words));
  ASSERT_EQ(peak.ended.exit_code, 0) << peak.ended.out << peak.ended.err;
  const auto planned = static_cast<double>(plan.at("bytes_per_rank").as_integer());
  const auto taken = static_cast<double>(peak.bytes - program);
  EXPECT_GT(taken, 100e6) << "too small to compare";
  EXPECT_LT(planned, 1.2 * taken) << plan.dump();
  EXPECT_GT(1.2 * planned, taken) << plan.dump();
}

INSTANTIATE_TEST_SUITE_P(Jobs, PlannedPeaks, testing::ValuesIn(rows()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tessera
