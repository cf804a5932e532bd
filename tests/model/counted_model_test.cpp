// A model that is only counted: it says of itself what a model that is there says, and takes no memory for it.

#include <gtest/gtest.h>
#include <malloc.h>

#include "support/methods.h"
#include "support/sanitizer.h"

namespace tessera {
namespace {

struct Case {
  std::string name, sharing, adapter, mapper = "randomfold";
  double compression = 4;
  bool gradients = true;
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
};

class CountedModel : public testing::TestWithParam<Case> {
 protected:
  Model::Settings settings(Memory memory, int64_t width = 32) {
    test::TinyConfig config;
    config.hidden_size = width;
    config.intermediate_size = 2 * width;
    config.head_dim = width / 4;
    config.vocab_size = 301;
    config.dtype = "bfloat16";
    Model::Settings s = test::tiny_settings(folder_.path(), config);
    s.sharing.method = GetParam().sharing;
    s.sharing.mapper = GetParam().mapper;
    s.sharing.tile_rows = s.sharing.tile_cols = 8;
    s.sharing.compression = GetParam().compression;
    s.adapter.method = GetParam().adapter;
    s.adapter.rank = 2;
    s.train_base = s.adapter.method == "none";
    s.gradients = GetParam().gradients;
    s.max_position = 400;
    s.memory = memory;
    return test::with_plan(s);
  }
  static int64_t heap() {
    const struct mallinfo2 info = mallinfo2();
    return static_cast<int64_t>(info.uordblks + info.hblkhd);
  }
  test::TemporaryFolder folder_;
};

TEST_P(CountedModel, CountsWhatAModelHolds) {
  Model counted(settings(Memory::counted)), held(settings(Memory::held));
  EXPECT_EQ(counted.pool().owned_bytes(), held.pool().owned_bytes());
  EXPECT_EQ(counted.pool().trainable_count(), held.pool().trainable_count());
  EXPECT_EQ(counted.pool().frozen_count(), held.pool().frozen_count());
  EXPECT_EQ(counted.pool().trainable().values.bytes(), held.pool().trainable().values.bytes());
  EXPECT_EQ(counted.pool().trainable().grads.empty(), held.pool().trainable().grads.empty());
  EXPECT_EQ(counted.table_bytes(), held.table_bytes());
  EXPECT_EQ(counted.virtual_parameters(), held.virtual_parameters());
  EXPECT_EQ(counted.decoder().max_position(), held.decoder().max_position());
  const auto assembled = [](Model& model) {
    return model.bound_adapter() ? model.bound_adapter()->assembled_bytes() : 0;
  };
  EXPECT_EQ(assembled(counted), assembled(held));
}

TEST_P(CountedModel, TakesNoMemory) {
  if (test::is_address_sanitized()) GTEST_SKIP() << "a sanitizer's heap is not that of malloc";
  const int64_t before = heap();
  const Model counted(settings(Memory::counted, 256));
  const int64_t taken = heap() - before;
  const Model held(settings(Memory::held, 256));
  EXPECT_LT(20 * taken, heap() - before - taken);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const test::WeightMethod& method : test::weight_methods())
    all.push_back({method.name, method.is_adapter ? "none" : method.name, method.is_adapter ? method.name : "none",
                   "randomfold", 3});
  all.insert(all.end(), {{"full_forward_only", "none", "none", "randomfold", 4, false},
                         {"uncompressed_rps", "rps", "none", "randomfold", 1},
                         {"mos_on_rps", "rps", "mos"},
                         {"hashed", "rps", "none", "hashed"},
                         {"roast", "rps", "none", "roast-tile"}});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Methods, CountedModel, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tessera
