#include "compress/gate_state.h"

#include <gmock/gmock.h>

#include <bit>
#include <cmath>

#include "core/error.h"
#include "support/error_text.h"

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

TEST(GateStates, DamagedOnesAreNamedWithAWayOn) {
  const std::string whole = to_text(some_state(), {});
  const auto replaced = [&](const std::string& what, const std::string& with) {
    std::string text = whole;
    return text.replace(text.find(what), what.size(), with);
  };
  const size_t theta = whole.find("\"theta\"");
  std::string other_theta = whole;
  char& digit = other_theta[whole.find("3ff", theta) + 4];
  digit = digit == '0' ? '1' : '0';
  for (const std::string& text : {replaced("\"mu\": \"", "\"mu\": \"xx"), replaced("\"step\": ", "\"step\": 9"),
                                  replaced("\"step\": ", "\"step\": -"), whole.substr(0, whole.size() / 2), other_theta,
                                  std::string("[]"), std::string()}) {
    const std::string told = test::error_text([&] { parse_gates(text, "run/gates-state.json"); });
    EXPECT_THAT(told, testing::HasSubstr("run/gates-state.json: is damaged: ")) << text;
    EXPECT_THAT(told, testing::HasSubstr("remove it: the gates begin again")) << text;
  }
}

}  // namespace
}  // namespace tessera
