// A replica's state outside its process: snapshots, and bytes for the ranks of one job.

#include <cstring>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/hex.h"
#include "io/files.h"
#include "io/safetensors.h"
#include "model/native_folder.h"
#include "steplog/wire.h"
#include "train/spsa/replica.h"

namespace tessera {
namespace {

constexpr const char *kState = "state", *kChain = "chain";

/// Of a run whose votes are never late: the roster and the unit.
RecentRounds recent_of(const Json& numbers, uint32_t round) {
  std::vector<bool> taken;
  std::vector<uint32_t> machines;
  for (const Json& lane : numbers.at("roster").items()) {
    taken.push_back(!lane.is_null());
    if (taken.back()) machines.push_back(static_cast<uint32_t>(lane.as_integer()));
  }
  ByteWriter writer;
  writer.put(static_cast<uint32_t>(taken.size()));
  writer.put_bits(taken);
  for (const uint32_t machine : machines) writer.put(machine);
  writer.put(uint32_t{0});  // who has left is for the rules of the log to know
  ByteReader reader(writer.bytes());
  return RecentRounds::restore_roster(reader, 0, static_cast<int>(numbers.at("unit").as_integer()), round);
}

RecentRounds recent_of(const std::string& chain, int stale_max, uint32_t round) {
  const auto bytes = bytes_of_hex(chain);
  if (!bytes) throw UserError("", fmt::format("\"{}\" is no text of hexadecimal digits", kChain));
  const auto restored = decode_or_refusal([&] {
    ByteReader reader(*bytes);
    return RecentRounds::restore(reader, stale_max, round);
  });
  if (const auto* refusal = std::get_if<Refusal>(&restored))
    throw UserError("", fmt::format("\"{}\" breaks the rule \"{}\": {}", kChain, refusal->rule, refusal->detail));
  return std::get<RecentRounds>(restored);
}

TensorView slot_view(const TensorView& flat, const TrainableSlot& slot) {
  return flat.slice_rows(slot.begin, slot.begin + slot.shape.count()).reshape(slot.shape);
}

}  // namespace

std::vector<std::pair<std::string, TensorView>> Replica::vectors() const {
  std::vector<std::pair<std::string, TensorView>> all;
  optimizer_->visit_state([&](const std::string& name, const TensorView& vector) {
    // Snapshots have called SGD's state so since they exist; checkpoints call it "velocity".
    all.emplace_back(name == "velocity" ? "m" : name, vector);
  });
  return all;
}

Json Replica::numbers() const {
  Json machines = Json::array(), medians = Json::array(), sums = Json::array();
  for (const auto& lane : roster()) machines.push_back(lane ? Json(int64_t{*lane}) : Json());
  for (const uint8_t median : medians_) medians.push_back(int64_t{median});
  if (pool_)
    for (const int64_t sum : pool_->sums()) sums.push_back(sum);
  return Json::object()
      .set("round", int64_t{round_})
      .set("unit", int64_t{unit()})
      .set("halvings", int64_t{halvings_})
      .set("empty_rounds", int64_t{empty_rounds_})
      .set("medians", medians)
      .set("roster", machines)
      .set("beta1_power", hex_bits(beta1_power_))
      .set("beta2_power", hex_bits(beta2_power_))
      .set("pool_sums", sums);
}

std::string Replica::chain() const {
  if (header_.late_rounds() == 0) return "";  // roster and unit are all that there is
  ByteWriter writer;
  recent_.save(writer);
  return hex_text(writer.bytes());
}

void Replica::restore_numbers(const Json& json, const std::string& chain) {
  const auto round = static_cast<uint32_t>(json.at("round").as_integer());
  recent_ = header_.late_rounds() == 0 ? recent_of(json, round) : recent_of(chain, recent_.stale_max(), round);
  round_ = round;
  halvings_ = static_cast<int>(json.at("halvings").as_integer());
  empty_rounds_ = static_cast<int>(json.at("empty_rounds").as_integer());
  medians_.clear();
  for (const Json& median : json.at("medians").items()) medians_.push_back(static_cast<uint8_t>(median.as_integer()));
  beta1_power_ = double_of_hex(json.at("beta1_power").as_string());
  beta2_power_ = double_of_hex(json.at("beta2_power").as_string());
  std::vector<int64_t> sums;
  for (const Json& sum : json.at("pool_sums").items()) sums.push_back(sum.as_integer());
  if (pool_) return pool_->restore(std::move(sums));
  TS_CHECK(sums.empty(), "{} sums of a seed pool of {}", sums.size(), 0);
}

void Replica::save(const std::filesystem::path& file) {
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const TrainableSlot& slot : params_.slots) tensors.emplace_back(slot.name, slot_view(params_.values, slot));
  for (const auto& [name, vector] : vectors())
    for (const TrainableSlot& slot : params_.slots)
      tensors.emplace_back(slot.name + "/" + name, slot_view(vector, slot));
  // A state that is not finite would only be found out when it is gone on from.
  with_place(fmt::format("round {}", round_), [&] { require_finite("snapshot", tensors); });
  std::map<std::string, std::string> metadata = {{kState, numbers().dump()}};
  if (const std::string text = chain(); !text.empty()) metadata[kChain] = text;
  write_safetensors(file, tensors, metadata);
}

void Replica::load(const std::filesystem::path& file) {
  const SafetensorsReader reader = SafetensorsReader::open(file);
  with_place(file.string(), [&] {
    const auto state = reader.metadata().find(kState);
    if (state == reader.metadata().end()) throw UserError("", "is no snapshot of a replica");
    // Everything is looked up and compared before anything is copied: a file that does not fit changes nothing.
    std::vector<std::pair<TensorView, ConstView>> copies;
    const auto plan = [&](const std::string& name, const TensorView& to) {
      const ConstView from = reader.at(name);
      // The names fit as well for a model of another size: shapes are compared, too.
      if (!(from.shape == to.shape) || from.dtype != DType::f32)
        throw UserError("", fmt::format("tensor \"{}\" is {} {}, expected f32 {}", name, name_of(from.dtype),
                                        from.shape.text(), to.shape.text()));
      copies.emplace_back(to, from);
    };
    for (const TrainableSlot& slot : params_.slots) plan(slot.name, slot_view(params_.values, slot));
    for (const auto& [name, vector] : vectors())
      for (const TrainableSlot& slot : params_.slots) plan(slot.name + "/" + name, slot_view(vector, slot));
    const Json json = Json::parse(state->second, file.string());
    const auto chain = reader.metadata().find(kChain);
    // Numbers first: they may be refused, and values are copied one after the other.
    restore_numbers(json, chain == reader.metadata().end() ? "" : chain->second);
    for (const auto& [to, from] : copies) copy(from, to);
  });
}

std::vector<std::byte> Replica::pack() {
  // u64 length of the numbers | the numbers as JSON | the values | the optimizer's vectors, in the order of their names
  // in snapshots. For ranks of one job: never written to a disk.
  const std::string json = numbers().set(kChain, chain()).dump();
  // In front, since the vectors behind the numbers have no mark of their own.
  const uint64_t length = json.size();
  std::vector<std::byte> bytes;
  size_t total = sizeof(length) + json.size() + static_cast<size_t>(params_.values.bytes());
  for (const auto& [name, vector] : vectors()) total += static_cast<size_t>(vector.bytes());
  bytes.reserve(total);  // it is as large as the model: no room to grow by
  const auto append = [&](const void* data, size_t count) {
    bytes.resize(bytes.size() + count);
    std::memcpy(bytes.data() + bytes.size() - count, data, count);
  };
  append(&length, sizeof(length));
  append(json.data(), json.size());
  const auto append_view = [&](const ConstView& view) {
    const OnHost host(view);
    append(host.view().data, static_cast<size_t>(view.bytes()));
  };
  append_view(params_.values);
  for (const auto& [name, vector] : vectors()) append_view(vector);
  return bytes;
}

void Replica::unpack(std::span<const std::byte> bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  const std::string json(reinterpret_cast<const char*>(bytes.data()) + sizeof(length), length);
  const std::byte* at = bytes.data() + sizeof(length) + length;
  const auto take = [&](const TensorView& to) {
    copy(ConstView(at, to.shape, to.dtype), to);
    at += to.bytes();
  };
  take(params_.values);
  for (const auto& [name, vector] : vectors()) take(vector);
  TS_CHECK(at == bytes.data() + bytes.size(), "a packed state has {} bytes too many or too few",
           bytes.data() + bytes.size() - at);
  const Json numbers = Json::parse(json, "packed state");
  restore_numbers(numbers, numbers.at(kChain).as_string());
}

}  // namespace tessera
