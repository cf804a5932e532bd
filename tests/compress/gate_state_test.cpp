#include "compress/gate_state.h"

#include <gmock/gmock.h>

#include <bit>
#include <cmath>

#include "core/error.h"

namespace tessera {
namespace {

std::vector<uint64_t> bits(const std::vector<double>& values) {
  std::vector<uint64_t> all;
  for (const double value : values) all.push_back(std::bit_cast<uint64_t>(value));
  return all;
}

GateState some_state() {
  GateState state = GateState::open(3);
  state.step = 20;
  state.theta = {std::nextafter(1.0, 2.0), -0.0, 0.1};
  state.first = {5e-324, 1.0 / 3, -2};
  state.second = {0, 1e300, 1e-300};
  state.mu = 0.1 + 0.2;
  state.fallen = {{7, 2}, {11, 1}};
  state.curve = {{1, 1, 1}, {0.9, 1.0 / 7, 0.3}};
  return state;
}

TEST(GateStates, ComeBackWithTheirBits) {
  const GateState state = some_state();
  const SavedGates saved = parse_gates(to_text(state, {{"train.seed", "3"}}), "gates-state.json");
  EXPECT_EQ(saved.state.step, 20);
  EXPECT_EQ(bits(saved.state.theta), bits(state.theta));
  EXPECT_EQ(bits(saved.state.first), bits(state.first));
  EXPECT_EQ(bits(saved.state.second), bits(state.second));
  EXPECT_EQ(bits({saved.state.mu}), bits({state.mu}));
  ASSERT_EQ(saved.state.fallen.size(), 2u);
  EXPECT_EQ(saved.state.fallen[1].step, 11);
  EXPECT_EQ(saved.state.fallen[1].gate, 1);
  ASSERT_EQ(saved.state.curve.size(), 2u);
  EXPECT_EQ(bits(saved.state.curve[1]), bits(state.curve[1]));
  EXPECT_EQ(saved.reads, (StageReads{{"train.seed", "3"}}));
}

TEST(GateStates, DamagedOnesAreNamed) {
  std::string text = to_text(some_state(), {});
  text.replace(text.find("\"mu\": \"") + 7, 2, "xx");
  EXPECT_THROW(
      {
        try {
          parse_gates(text, "run/gates-state.json");
        } catch (const UserError& error) {
          EXPECT_THAT(error.what(), testing::HasSubstr("run/gates-state.json: \"xx"));
          throw;
        }
      },
      UserError);
}

}  // namespace
}  // namespace tessera
