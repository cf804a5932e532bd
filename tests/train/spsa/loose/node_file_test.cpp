// What a node knows of itself over a kill.

#include "train/spsa/loose/node_file.h"

#include <gmock/gmock.h>

#include "support/error_text.h"
#include "support/paths.h"

namespace tessera {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class NodeFiles : public testing::Test {
 protected:
  std::string fault(const std::string& text) const {
    write_file(file_, text);
    return error_text([&] { (void)NodeFile::read(file_); });
  }
  TemporaryFolder folder_;
  std::filesystem::path file_ = folder_ / "node.json";
};

TEST_F(NodeFiles, ComeBackAsTheyWereWritten) {
  EXPECT_FALSE(NodeFile::read(file_));
  const NodeFile node{.name = "a-b_7",
                      .run = std::string(64, 'e'),
                      .run_name = "first",
                      .machine = 0xfffffeff,
                      .last_seed_round = 0xffffffff,
                      .vote = {std::byte{0}, std::byte{0x9f}, std::byte{0xff}}};
  node.write(file_);
  const auto back = NodeFile::read(file_);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->name, node.name);
  EXPECT_EQ(back->run, node.run);
  EXPECT_EQ(back->run_name, node.run_name);
  EXPECT_EQ(back->machine, node.machine);
  EXPECT_EQ(back->last_seed_round, node.last_seed_round);
  EXPECT_EQ(back->vote, node.vote);
  NodeFile{.name = "b", .run = "0", .run_name = "n"}.write(file_);
  EXPECT_EQ(NodeFile::read(file_)->last_seed_round, -1) << "it has voted in no round";
}

TEST_F(NodeFiles, HaveKeysInTheOrderOfTheAlphabet) {
  NodeFile{.name = "a",
           .run = "00ff",
           .run_name = "n",
           .machine = 16909060,
           .last_seed_round = 11,
           .vote = {std::byte{0x54}}}
      .write(file_);
  EXPECT_EQ(read_file(file_),
            "{\n \"last_seed_round\": 11,\n \"machine\": 16909060,\n \"name\": \"a\",\n \"run\": \"00ff\",\n"
            " \"run_name\": \"n\",\n \"vote\": \"54\"\n}\n");
}

TEST_F(NodeFiles, CutAtAnyByteAreAnErrorThatNamesTheFile) {
  NodeFile{.name = "a", .run = "00ff", .run_name = "n", .machine = 7, .last_seed_round = 11}.write(file_);
  const std::string whole = read_file(file_);
  for (size_t size = 0; size + 2 < whole.size(); ++size)  // without the line's end it is whole
    EXPECT_THAT(fault(whole.substr(0, size)), AllOf(StartsWith(file_.string()), HasSubstr("remove the file"))) << size;
}

TEST_F(NodeFiles, WithWhatCannotBeAreAnError) {
  const auto with = [](const std::string& machine, const std::string& round) {
    return R"({"last_seed_round": )" + round + R"(, "machine": )" + machine +
           R"(, "name": "a", "run": "00", "run_name": "n"})";
  };
  for (const auto& [machine, round] :
       {std::pair{"-1", "3"}, {"4294967296", "3"}, {"4294967040", "3"}, {"7", "-2"}, {"7", "4294967296"}})
    EXPECT_THAT(fault(with(machine, round)),
                AllOf(StartsWith(file_.string()), HasSubstr("out of range"), HasSubstr("remove the file")));
  EXPECT_THAT(fault(with("7.5", "3")), StartsWith(file_.string()));
  EXPECT_THAT(fault(with("\"7\"", "3")), StartsWith(file_.string()));
  EXPECT_THAT(fault("[]"), StartsWith(file_.string()));
  EXPECT_THAT(fault(R"({"last_seed_round": 1, "machine": 2, "name": "a", "run_name": "n"})"),
              AllOf(StartsWith(file_.string()), HasSubstr("run")));
  EXPECT_EQ(fault(with("7", "3")), kNothingThrown) << "a file without a vote";
  for (const char* vote : {"5", "5G", "0x12", "AB"})
    EXPECT_THAT(fault(R"({"last_seed_round": 1, "machine": 2, "name": "a", "run": "00", "run_name": "n", "vote": ")" +
                      std::string(vote) + "\"}"),
                HasSubstr("no hexadecimal"));
}

}  // namespace
}  // namespace tessera
