#include "compress/gate_state.h"

#include <bit>
#include <charconv>

#include "core/error.h"
#include "io/sha256.h"

namespace tessera {
namespace {

std::string bits_of(double value) { return fmt::format("{:016x}", std::bit_cast<uint64_t>(value)); }

Json bits_of(const std::vector<double>& values) {
  Json all = Json::array();
  for (const double value : values) all.push_back(bits_of(value));
  return all;
}

double from_bits(const Json& json) {
  const std::string& text = json.as_string();
  uint64_t bits = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), bits, 16);
  if (text.size() != 16 || fault != std::errc() || end != text.data() + text.size())
    throw UserError("", fmt::format("\"{}\" is not 16 hexadecimal digits", text));
  return std::bit_cast<double>(bits);
}

std::vector<double> all_from_bits(const Json& json) {
  std::vector<double> values;
  for (const Json& value : json.items()) values.push_back(from_bits(value));
  return values;
}

Json to_json(const std::vector<GateState::Fall>& fallen) {
  Json all = Json::array();
  for (const auto& [step, gate] : fallen) all.push_back(Json::object().set("step", step).set("gate", gate));
  return all;
}

}  // namespace

GateState GateState::open(size_t gates) {
  GateState state;
  state.theta.assign(gates, 1.0);
  state.first.assign(gates, 0.0);
  state.second.assign(gates, 0.0);
  state.curve = {state.theta};
  return state;
}

namespace {

Json to_json(const GateState& state, const StageReads& reads) {
  Json curve = Json::array();
  for (const auto& thetas : state.curve) curve.push_back(bits_of(thetas));
  return Json::object()
      .set("format", "tessera fold gates in training")
      .set("version", 1)
      .set("reads", tessera::to_json(reads))
      .set("step", state.step)
      .set("theta", bits_of(state.theta))
      .set("first_moment", bits_of(state.first))
      .set("second_moment", bits_of(state.second))
      .set("mu", bits_of(state.mu))
      .set("fallen", to_json(state.fallen))
      .set("curve", curve);
}

}  // namespace

std::string to_text(const GateState& state, const StageReads& reads) {
  Json json = to_json(state, reads);
  const std::string hash = sha256_hex(json.dump());
  return json.set("sha256", hash).dump(1) + "\n";
}

SavedGates parse_gates(const std::string& text, const std::string& where) {
  try {
    const Json json = Json::parse(text, where);
    SavedGates saved{.state = {.step = json.at("step").as_integer(),
                               .theta = all_from_bits(json.at("theta")),
                               .first = all_from_bits(json.at("first_moment")),
                               .second = all_from_bits(json.at("second_moment")),
                               .mu = from_bits(json.at("mu")),
                               .fallen = {},
                               .curve = {}},
                     .reads = stage_reads_of(json.at("reads"))};
    for (const Json& fall : json.at("fallen").items())
      saved.state.fallen.push_back({fall.at("step").as_integer(), fall.at("gate").as_integer()});
    for (const Json& thetas : json.at("curve").items()) saved.state.curve.push_back(all_from_bits(thetas));
    if (sha256_hex(to_json(saved.state, saved.reads).dump()) != json.at("sha256").as_string())
      throw UserError(where, "its contents do not match its hash");
    return saved;
  } catch (const UserError& fault) {
    throw UserError(where, "is damaged: " + fault.message(), "remove it: the gates begin again");
  }
}

}  // namespace tessera
