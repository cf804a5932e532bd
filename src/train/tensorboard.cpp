#include "train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

#include "core/crc32.h"
#include "core/error.h"
#include "io/files.h"
#include "train/run_folder.h"

// An event file is a run of records, each
//
//   u64 length | u32 masked crc32c(length) | payload | u32 masked crc32c(payload)          little-endian
//
// whose payload is a protobuf message Event. Only these fields are written (number and type):
//
//   Event         1 wall_time double   2 step int64   3 file_version string   5 summary Summary
//   Summary       1 value Summary.Value, repeated
//   Summary.Value 1 tag string   2 simple_value float

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";

/// Sums of bytes that hold their own sums are weak; the format turns and shifts them.
uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u; }

void put_little_endian(std::string& to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
}

void put_varint(std::string& to, uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>((value & 0x7F) | 0x80));
  to.push_back(static_cast<char>(value));
}

// A protobuf field is a key, number << 3 | wire type, and the value: 0 varint, 1 eight bytes, 2 length and bytes, 5
// four bytes.
void put_int(std::string& to, uint32_t number, int64_t value) {
  put_varint(to, number << 3 | 0);
  put_varint(to, static_cast<uint64_t>(value));
}
void put_double(std::string& to, uint32_t number, double value) {
  put_varint(to, number << 3 | 1);
  put_little_endian(to, std::bit_cast<uint64_t>(value), 8);
}
void put_bytes(std::string& to, uint32_t number, std::string_view value) {
  put_varint(to, number << 3 | 2);
  put_varint(to, value.size());
  to += value;
}
void put_float(std::string& to, uint32_t number, float value) {
  put_varint(to, number << 3 | 5);
  put_little_endian(to, std::bit_cast<uint32_t>(value), 4);
}

std::string record(std::string_view payload) {
  std::string bytes;
  put_little_endian(bytes, payload.size(), 8);
  put_little_endian(bytes, masked_crc(bytes), 4);
  bytes += payload;
  put_little_endian(bytes, masked_crc(payload), 4);
  return bytes;
}

/// The file's first record.
std::string opening(double seconds) {
  std::string version;
  put_double(version, 1, seconds);
  // The version that readers look for; with it, tags stand in the values themselves.
  put_bytes(version, 3, "brain.Event:2");
  return record(version);
}

std::string scalars(const Json& line) {
  const Json* split = line.find("split");
  std::string summary;
  if (!split) return summary;
  for (const auto& [key, member] : line.members()) {
    if (key == "step" || !member.is_number()) continue;
    std::string value;
    put_bytes(value, 1, split->as_string() + "/" + key);
    put_float(value, 2, static_cast<float>(member.as_number()));
    put_bytes(summary, 1, value);
  }
  return summary;
}

/// The record of a line of metrics.jsonl, or nothing when it has no scalars.
std::string line_record(const Json& line, double seconds) {
  const std::string summary = scalars(line);
  if (summary.empty()) return {};
  std::string event;
  put_double(event, 1, seconds);
  put_int(event, 2, line.at("step").as_integer());
  put_bytes(event, 5, summary);
  return record(event);
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

double step_seconds(const Json& line) {
  const Json* seconds = line.find("step_seconds");
  return seconds ? seconds->as_number() : 0;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

/// <prefix><seconds>.<host>.<process id>: a copy under another name is the user's.
bool is_event_file(std::string_view name) {
  if (!name.starts_with(kPrefix)) return false;
  name.remove_prefix(kPrefix.size());
  const size_t host = name.find('.'), process = name.rfind('.');
  const auto is_number = [](std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  };
  return host < process && is_number(name.substr(0, host)) && is_number(name.substr(process + 1));
}

void remove_other_event_files(const fs::path& keep) {
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(keep.parent_path()))
    if (is_event_file(entry.path().filename().string()) && entry.path() != keep) old.push_back(entry.path());
  for (const fs::path& file : old) fs::remove(file);
}

}  // namespace

EventFile::EventFile(const fs::path& folder, const std::vector<Json>& kept) {
  const double now = now_seconds();
  file_ = folder / fmt::format("{}{}.{}.{}", kPrefix, static_cast<int64_t>(now), host_name(), getpid());
  // The first line's time, so that the last one's is now.
  double time = now;
  for (const Json& line : kept) time -= step_seconds(line);
  std::string bytes = opening(time);
  for (const Json& line : kept) bytes += line_record(line, time += step_seconds(line));
  write_text_file(file_, bytes);
  // The new file is whole before the old ones go: a kill in between leaves a step shown twice, not one lost.
  remove_other_event_files(file_);
}

void EventFile::append(const Json& line) { append_to_file(file_, line_record(line, now_seconds())); }

}  // namespace tessera
