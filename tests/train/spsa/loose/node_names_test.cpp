// Whose the machines' numbers are, as a node's folder keeps it for people.

#include "train/spsa/loose/node_names.h"

#include <gmock/gmock.h>

#include "io/sha256.h"
#include "support/paths.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

class Names : public testing::Test {
 protected:
  Names() { run_.sha256[31] = std::byte{9}; }
  NamesOfMachines read() const { return read_node_names(file_, hex_text(run_.sha256)); }
  RunId run_;
  TemporaryFolder folder_;
  std::filesystem::path file_ = folder_ / "nodes.json";
};

TEST_F(Names, AreKeptOverAKill) {
  NodeNames first(file_, run_);
  first.write();
  EXPECT_FALSE(std::filesystem::exists(file_)) << "there is nothing to tell";
  first.add(0xfffffeff, "a");
  first.add(40, "b-b_7");
  first.add(40, "c");  // who proposed it first
  first.write();
  NodeNames second(file_, run_);
  EXPECT_THAT(second.names(), ElementsAre(Pair(40, "b-b_7"), Pair(0xfffffeff, "a")));
  second.add(7, "a");
  second.write();
  EXPECT_THAT(read(), ElementsAre(Pair(7, "a"), Pair(40, "b-b_7"), Pair(0xfffffeff, "a")));
}

TEST_F(Names, OfAnotherRunAreNotShown) {
  NodeNames names(file_, run_);
  names.add(40, "a");
  names.write();
  RunId other;
  EXPECT_THAT(read_node_names(file_, hex_text(other.sha256)), IsEmpty());
  EXPECT_THAT(NodeNames(file_, other).names(), IsEmpty());
}

TEST_F(Names, ThatAreNoneAreLeftOutAndADamagedFileEndsNothing) {
  const std::string end = "}, \"run\": \"" + hex_text(run_.sha256) + "\"}";
  write_file(file_, R"({"nodes": {"1": "a", "2": "\u001b[2J", "3": "", "x": "b", "-4": "c", "4294967296": "d")" + end);
  EXPECT_THAT(read(), ElementsAre(Pair(1, "a")));
  for (const std::string& text : {std::string("{"), std::string("[]"), R"({"nodes": {"1": 2)" + end}) {
    write_file(file_, text);
    EXPECT_THAT(read(), IsEmpty()) << text;
  }
}

TEST_F(Names, WhereTheDiskTakesNothingEndNothing) {
  NodeNames names(folder_ / "absent/nodes.json", run_);
  names.add(40, "a");
  names.write();
  EXPECT_THAT(names.names(), ElementsAre(Pair(40, "a")));
}

TEST_F(Names, StandBehindTheNumbers) {
  EXPECT_EQ(machine_in_words(40, {{40, "a"}}), "40 (a)");
  EXPECT_EQ(machine_in_words(41, {{40, "a"}}), "41");
}

}  // namespace
}  // namespace tessera
