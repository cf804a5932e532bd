// A replica's state outside its process: snapshots, packed bytes and digests.

#include <gmock/gmock.h>

#include <limits>

#include "core/error.h"
#include "io/safetensors.h"
#include "train/spsa/replicas.h"

namespace tessera {
namespace {

using namespace test;

TEST_P(ReplicaOf, GoesOnFromASnapshotAndFromPackedBytes) {
  const auto records = rounds(30);
  const test::OwnContext own;
  const std::string expected = replayed(header(), records, own.ctx, true);
  OwnPool first, second, third;
  Replica a(header(), first.params()), b(header(), second.params()), c(header(), third.params());
  a.apply(own.ctx, {records.data(), 17});
  const test::TemporaryFolder folder;
  a.save(folder / "s.safetensors");
  b.load(folder / "s.safetensors");
  c.unpack(a.pack());
  EXPECT_EQ(b.round(), 17u);
  for (auto& [replica, pool] : {std::pair<Replica&, OwnPool&>{b, second}, {c, third}}) {
    replica.apply(own.ctx, {records.data() + 17, 13});
    EXPECT_TRUE(pool.bytes() + replica.digest(own.ctx).text() == expected);
  }
  b.save(folder / "again.safetensors");
  c.save(folder / "and_again.safetensors");
  EXPECT_EQ(test::read_file(folder / "again.safetensors"), test::read_file(folder / "and_again.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(Stepping, ReplicaOf, testing::ValuesIn(kStepping), name_of_kind);
INSTANTIATE_TEST_SUITE_P(Others, ReplicaOf, testing::ValuesIn(kOthers), name_of_kind);

TEST(ReplicaState, OfEveryRegisteredOptimizerIsInSnapshotsPacksAndDigests) {
  for (const OptimizerKind& kind : optimizer_kinds()) {
    OwnPool start, first, second, third;
    RunHeader h = header_of(start);
    h.optimizer = kind.name;
    if (kind.reads("momentum")) h.momentum = 0.9;
    h = RunHeader::parse(h.text(), "header.json");
    const auto records = random_rounds(h, start, 9);
    const OwnContext own;
    Replica a(h, first.params()), b(h, second.params()), c(h, third.params());
    a.apply(own.ctx, {records.data(), 6});
    EXPECT_EQ(a.state_bytes(), kind.state_vectors({.momentum = h.momentum}) * first.params().values.bytes());
    const StateDigest of_values = values_digest(own.ctx, first.params(), first.params().values);
    EXPECT_EQ(a.digest(own.ctx) == of_values, a.state_bytes() == 0) << kind.name;
    const TemporaryFolder folder;
    a.save(folder / "s.safetensors");
    b.load(folder / "s.safetensors");
    c.unpack(a.pack());
    for (Replica* replica : {&a, &b, &c}) replica->apply(own.ctx, {records.data() + 6, 3});
    EXPECT_EQ(b.digest(own.ctx), a.digest(own.ctx)) << kind.name;
    EXPECT_EQ(c.digest(own.ctx), a.digest(own.ctx)) << kind.name;
  }
}

std::vector<std::string> tensors_of_snapshot(const std::string& optimizer, double momentum) {
  OwnPool own;
  RunHeader h = header_of(own);
  h.optimizer = optimizer;
  h.momentum = momentum;
  const TemporaryFolder folder;
  Replica(h, own.params()).save(folder / "s.safetensors");
  return SafetensorsReader::open(folder / "s.safetensors").names();
}

TEST(ReplicaState, IsNamedInSnapshotsAsItAlwaysWas) {
  using testing::UnorderedElementsAre;
  EXPECT_THAT(tensors_of_snapshot("sgd", 0), UnorderedElementsAre("a", "b", "c"));
  EXPECT_THAT(tensors_of_snapshot("sgd", 0.9), UnorderedElementsAre("a", "b", "c", "a/m", "b/m", "c/m"));
  EXPECT_THAT(tensors_of_snapshot("adamw", 0),
              UnorderedElementsAre("a", "b", "c", "a/m", "b/m", "c/m", "a/v", "b/v", "c/v"));
}

TEST(ReplicaState, APoolOfDirectionsIsJoinedFromItsSumsAlone) {
  OwnPool start;
  const RunHeader h = header_of(start, Family::pool, 32);
  const auto records = random_rounds(h, start, 200);
  const test::OwnContext own;
  OwnPool trained, joined;
  Replica a(h, trained.params()), b(h, joined.params());
  a.apply(own.ctx, records);
  b.unpack(a.pack());  // values are rebuilt from base and sums, whatever was handed over
  EXPECT_EQ(trained.bytes(), joined.bytes());
}

TEST(ReplicaState, ThatIsNotFiniteIsNotSaved) {
  OwnPool own;
  RunHeader h = header_of(own);
  h.momentum = 0.9;
  Replica replica(h, own.params());
  replica.apply(OwnContext().ctx, random_rounds(h, own, 2));
  const TemporaryFolder folder;
  const auto refusal = [&]() -> std::string {
    try {
      replica.save(folder / "s.safetensors");
    } catch (const UserError& error) {
      return error.where() + ": " + error.message();
    }
    return "saved";
  };
  ASSERT_EQ(refusal(), "saved");
  const std::string before = read_file(folder / "s.safetensors");
  const auto& slots = own.params().slots;  // each begins at a multiple of kSlotAlignment
  float& weight = own.params().values.as<float>()[static_cast<size_t>(slots[1].begin + 5)];
  const float whole = std::exchange(weight, std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(refusal(), "round 2: the snapshot is not saved: element 5 of \"b\" is nan");
  weight = whole;
  std::vector<std::byte> packed = replica.pack();
  const float infinite = std::numeric_limits<float>::infinity();
  const auto behind =
      static_cast<size_t>(own.params().values.shape.count() - (slots[2].begin + 899));  // the momentum is last
  std::memcpy(packed.data() + packed.size() - behind * sizeof(float), &infinite, sizeof(float));
  replica.unpack(packed);
  EXPECT_EQ(refusal(), "round 2: the snapshot is not saved: element 899 of \"c/m\" is inf");
  EXPECT_EQ(read_file(folder / "s.safetensors"), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1) << "a temporary is left";
}

TEST(ReplicaState, NoticesThatItsWeightsAreNotTheLogs) {
  OwnPool start;
  const RunHeader h = header_of(start);
  auto records = random_rounds(h, start, 5);
  const test::OwnContext own;
  OwnPool good;
  Replica a(h, good.params());
  a.apply(own.ctx, records);
  Record check;
  check.type = RecordType::digest;
  check.round = 5;
  check.machine = 3;
  check.digest = {a.digest(own.ctx).sum, a.digest(own.ctx).check};
  records.push_back(check);
  EXPECT_EQ(replayed(h, records, own.ctx, true).size(), good.bytes().size() + 32);
  OwnPool other;
  other.params().values.as<float>()[140] += 1e-6f;
  Replica b(h, other.params());
  try {
    b.apply(own.ctx, records);
    FAIL() << "the digest of other weights was accepted";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("this replica's weights differ from what the log says of machine 3"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace tessera
