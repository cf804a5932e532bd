// Of weights that are trained the pool holds a copy: the file that they came from is not kept in memory behind it, and
// is still there for who reads it again.

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "support/base_folder.h"

namespace tessera {
namespace {

using namespace test;

class TrainedCopy : public BaseFolder {
 protected:
  /// 12 MB, most of them in tensors of many pages.
  std::filesystem::path large_model() {
    return write_model("base", TinyConfig{.vocab_size = 20000, .hidden_size = 64, .intermediate_size = 2000});
  }
  /// Bytes of the file that are in this process's memory.
  static int64_t resident(const std::filesystem::path& file) {
    std::ifstream maps("/proc/self/smaps");
    int64_t kilobytes = 0;
    bool is_here = false;
    for (std::string line; std::getline(maps, line);) {
      if (line.find('-') < line.find(' ')) is_here = line.ends_with(file.filename().string());
      if (is_here && line.starts_with("Rss:")) kilobytes += std::stoll(line.substr(4));
    }
    return 1024 * kilobytes;
  }
};

TEST_F(TrainedCopy, LeavesTheFileBehind) {
  const std::filesystem::path folder = large_model(), file = folder / "model.safetensors";
  Model::Settings settings = given(folder);
  settings.train_base = true;
  Model model(settings);
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(file));
  ASSERT_GT(bytes, 10'000'000);
  EXPECT_LT(resident(file), bytes / 8) << "pages around a tensor's ends";
  // Who asks for the file's contents gets them, and they are what was copied.
  const SlotId embedding = 0;
  const ConstView stored = model.source()->at(model.pool().name(embedding));
  EXPECT_TRUE(same_bytes(stored, model.pool().values(embedding)));
  EXPECT_GT(resident(file), stored.bytes() / 2) << "the test sees what is resident";
}

TEST_F(TrainedCopy, LeavesATiedHeadThatIsStoredTwiceBehind) {
  const std::filesystem::path folder =
      write_model("tied", TinyConfig{.vocab_size = 40000, .hidden_size = 64, .tied = true});
  change(folder, [](Tensors& tensors) { tensors["lm_head.weight"] = copy(tensors.at("model.embed_tokens.weight")); });
  Model::Settings settings = given(folder);
  settings.train_base = true;
  const Model model(settings);
  const std::filesystem::path file = folder / "model.safetensors";
  EXPECT_LT(resident(file), static_cast<int64_t>(std::filesystem::file_size(file)) / 8);
}

TEST_F(TrainedCopy, WithFrozenWeightsTheseAreReadInPlace) {
  const std::filesystem::path folder = large_model(), file = folder / "model.safetensors";
  Model::Settings settings = given(folder);
  settings.train_base = true;
  settings.freeze = {"model[.]embed_tokens[.].*"};
  Model model(settings);
  EXPECT_EQ(model.pool().frozen_mapped_bytes(), 20000 * 64 * 4);
}

}  // namespace
}  // namespace tessera
