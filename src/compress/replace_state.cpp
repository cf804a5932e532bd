#include "compress/replace_state.h"

#include <cstdlib>

#include "core/device/memory.h"
#include "core/error.h"
#include "io/files.h"
#include "io/hdf5_file.h"
#include "io/json_file.h"

namespace tessera {
namespace {

constexpr const char* kState = "/state";

std::string bits_of(double value) { return fmt::format("{:a}", value); }

double from_bits(const Json& json) {
  const std::string& text = json.as_string();
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') throw UserError("", fmt::format("\"{}\" is not a number", text));
  return value;
}

constexpr const char* kMend = "remove it: the training begins again";

}  // namespace

std::string to_text(const ReplaceState& state, const StageReads& reads) {
  Json curve = Json::array();
  for (const ReplacePoint& point : state.curve)
    curve.push_back(Json::object()
                        .set("phase", point.phase)
                        .set("step", point.step)
                        .set("train", bits_of(point.train))
                        .set("validation", bits_of(point.validation)));
  return Json::object()
      .set("format", "tessera fold block in training")
      .set("version", 1)
      .set("reads", to_json(reads))
      .set("phase", state.phase)
      .set("step", state.step)
      .set("evaluated", state.evaluated)
      .set("best", bits_of(state.best))
      .set("train_sum", bits_of(state.train_sum))
      .set("train_count", bits_of(state.train_count))
      .set("curve", std::move(curve))
      .dump();
}

SavedReplace parse_replace_state(const std::string& text) {
  const Json json = Json::parse(text, kState);
  SavedReplace saved{.state = {.phase = json.at("phase").as_integer(),
                               .step = json.at("step").as_integer(),
                               .evaluated = json.at("evaluated").as_integer(),
                               .best = from_bits(json.at("best")),
                               .train_sum = from_bits(json.at("train_sum")),
                               .train_count = from_bits(json.at("train_count")),
                               .curve = {}},
                     .reads = stage_reads_of(json.at("reads"))};
  for (const Json& point : json.at("curve").items())
    saved.state.curve.push_back({.phase = point.at("phase").as_integer(),
                                 .step = point.at("step").as_integer(),
                                 .train = from_bits(point.at("train")),
                                 .validation = from_bits(point.at("validation"))});
  return saved;
}

void write_replace_state(const std::filesystem::path& file, const std::string& text, const NamedTensors& tensors) {
  write_file_atomically(file, [&](const std::filesystem::path& temporary) {
    Hdf5File h5 = Hdf5File::create(temporary);
    h5.write_text(kState, text);
    for (const auto& [name, values] : tensors) h5.write(name, values);
    h5.seal();
  });
}

std::string read_replace_text(const std::filesystem::path& file) {
  return with_mend(file, kMend, [&] { return Hdf5File::open(file).read_text(kState); });
}

void read_replace_tensors(const std::filesystem::path& file, const NamedTensors& tensors) {
  with_mend(file, kMend, [&] {
    const Hdf5File h5 = Hdf5File::open(file, false);  // whose seal was looked at with the text
    for (const auto& [name, values] : tensors) h5.read(name, values);
  });
}

}  // namespace tessera
