#include "compress/gate_state.h"

#include "core/error.h"
#include "core/hex.h"
#include "io/sha256.h"

namespace tessera {
namespace {

Json bits_of(const std::vector<double>& values) {
  Json all = Json::array();
  for (const double value : values) all.push_back(hex_bits(value));
  return all;
}

std::vector<double> all_from_bits(const Json& json) {
  std::vector<double> values;
  for (const Json& value : json.items()) values.push_back(double_of_hex(value.as_string()));
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
      .set("mu", hex_bits(state.mu))
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
                               .mu = double_of_hex(json.at("mu").as_string()),
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
