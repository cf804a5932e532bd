// Event files, read back by a parser that shares nothing with the writer.

#include "train/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>

#include "core/error.h"
#include "support/paths.h"
#include "train/reporter.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

/// CRC-32C bit by bit, straight from the polynomial: slow, and not the table that is tested.
uint32_t slow_crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes)
    for (int bit = 0; bit < 8; ++bit) {
      const bool carry = ((crc ^ static_cast<uint32_t>(static_cast<unsigned char>(byte) >> bit)) & 1) != 0;
      crc = (crc >> 1) ^ (carry ? 0x82F63B78u : 0);
    }
  return ~crc;
}

struct Event {
  double wall_time = 0;
  int64_t step = 0;
  std::string file_version;
  std::map<std::string, float> scalars;
};

/// Reads protobuf fields by number; gives up by throwing out_of_range.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    number = static_cast<int>(key >> 3);
    switch (key & 7) {
      case 0:
        integer = varint();
        break;
      case 1:
        bytes = take(8);
        break;
      case 2:
        bytes = take(varint());
        break;
      case 5:
        bytes = take(4);
        break;
      default:
        throw std::out_of_range("wire type");
    }
    return true;
  }
  template <class T> T as() const {
    T value;
    if (bytes.size() != sizeof(T)) throw std::out_of_range("size");
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  int number = 0;
  uint64_t integer = 0;
  std::string_view bytes;

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (!(byte & 0x80)) return value;
    }
  }
  std::string_view take(uint64_t count) {
    if (count > rest_.size()) throw std::out_of_range("end");
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  std::string_view rest_;
};

Event parse_event(std::string_view payload) {
  Event event;
  for (Message field(payload); field.next();) {
    if (field.number == 1) event.wall_time = field.as<double>();
    if (field.number == 2) event.step = static_cast<int64_t>(field.integer);
    if (field.number == 3) event.file_version = field.bytes;
    if (field.number != 5) continue;
    for (Message summary(field.bytes); summary.next();) {
      std::string tag;
      float number = 0;
      for (Message value(summary.bytes); value.next();) {
        if (value.number == 1) tag = value.bytes;
        if (value.number == 2) number = value.as<float>();
      }
      event.scalars[tag] = number;
    }
  }
  return event;
}

bool sum_is_right(const std::string& bytes, size_t at, std::string_view summed) {
  uint32_t stored;
  std::memcpy(&stored, bytes.data() + at, 4);
  const uint32_t crc = slow_crc32c(summed);
  return stored == ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

/// Events up to the first record that is cut off, as TensorBoard reads them. A wrong checksum fails the test.
std::vector<Event> read_events(const fs::path& file) {
  const std::string bytes = test::read_file(file);
  std::vector<Event> events;
  for (size_t at = 0; at + 12 <= bytes.size();) {
    uint64_t length;
    std::memcpy(&length, bytes.data() + at, 8);
    if (at + 16 + length > bytes.size()) break;
    const std::string_view payload = std::string_view(bytes).substr(at + 12, length);
    EXPECT_TRUE(sum_is_right(bytes, at + 8, std::string_view(bytes).substr(at, 8)));
    EXPECT_TRUE(sum_is_right(bytes, at + 12 + length, payload));
    events.push_back(parse_event(payload));
    at += 16 + length;
  }
  return events;
}

std::vector<fs::path> event_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) files.push_back(entry.path());
  return files;
}

std::vector<std::pair<std::string, int64_t>> tags_and_steps(const std::vector<Event>& events) {
  std::vector<std::pair<std::string, int64_t>> all;
  for (const Event& event : events)
    for (const auto& [tag, value] : event.scalars) all.emplace_back(tag, event.step);
  return all;
}

Json train_line(int64_t step, double loss) {
  return Json::object().set("step", step).set("split", "train").set("loss", loss);
}

TEST(EventFile, BeginsWithItsVersionAndIsNamedForTensorBoard) {
  const test::TemporaryFolder folder;
  const EventFile file(folder.path(), {});
  EXPECT_EQ(event_files(folder.path()), std::vector<fs::path>{file.path()});
  const auto events = read_events(file.path());
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
}

TEST(EventFile, KeepsEveryNumberOfALineUnderItsSplitAndKey) {
  const test::TemporaryFolder folder;
  EventFile file(folder.path(), {});
  file.append(Json::object()
                  .set("step", 0)
                  .set("split", "eval")
                  .set("loss", 5.75)
                  .set("exact_match", 0.25)
                  .set("documents", 16));
  file.append(Json::object()
                  .set("step", 1)
                  .set("split", "train")
                  .set("loss", -1.5)
                  .set("lr", 2e-4)
                  .set("peak_rss_bytes", int64_t{1} << 40));
  const auto events = read_events(file.path());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1].step, 0);
  EXPECT_THAT(events[1].scalars, UnorderedElementsAre(Pair("eval/loss", 5.75f), Pair("eval/exact_match", 0.25f),
                                                      Pair("eval/documents", 16.f)));
  EXPECT_EQ(events[2].step, 1);
  EXPECT_THAT(events[2].scalars, UnorderedElementsAre(Pair("train/loss", -1.5f), Pair("train/lr", 2e-4f),
                                                      Pair("train/peak_rss_bytes", 0x1p40f)));
}

TEST(EventFile, KeepsStepsThatNeedManyBytes) {
  const test::TemporaryFolder folder;
  EventFile file(folder.path(), {});
  for (const int64_t step : {int64_t{127}, int64_t{128}, int64_t{16384}, int64_t{1} << 40})
    file.append(train_line(step, 1));
  EXPECT_THAT(tags_and_steps(read_events(file.path())),
              ElementsAre(Pair("train/loss", 127), Pair("train/loss", 128), Pair("train/loss", 16384),
                          Pair("train/loss", int64_t{1} << 40)));
}

TEST(EventFile, LeavesOutEventsAndNumbersThatAreNotFinite) {
  const test::TemporaryFolder folder;
  EventFile file(folder.path(), {});
  file.append(Json::object().set("event", "done").set("step", 5).set("loss", 1.0));
  file.append(Json::parse(R"({"step":6,"split":"eval","loss":null})", "a line"));
  EXPECT_EQ(read_events(file.path()).size(), 1u);
}

TEST(EventFile, SetsKeptLinesBackByTheirTrainingTime) {
  const test::TemporaryFolder folder;
  const auto line = [](int64_t step, double seconds) { return train_line(step, 1).set("step_seconds", seconds); };
  const double before = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  EventFile file(folder.path(), {line(1, 10), line(2, 30)});
  file.append(line(3, 5));
  const auto events = read_events(file.path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_NEAR(events[2].wall_time - events[1].wall_time, 30, 1e-3);
  EXPECT_GE(events[3].wall_time, events[2].wall_time - 1e-3);
  EXPECT_GE(events[2].wall_time, before - 1e-3);
}

TEST(EventFile, AnUnwritableFolderIsNamed) {
  const test::TemporaryFolder folder;
  EXPECT_THROW(EventFile(folder / "absent", {}), UserError);
}

TEST(TensorBoard, AResumedRunShowsEachStepOnce) {
  const test::TemporaryFolder folder;
  {
    const RunFolder run(folder / "run", "auto");
    Reporter report(&run, Progress::none);
    report.rewind(-1);
    for (int64_t step = 1; step <= 5; ++step) report.metric(train_line(step, static_cast<double>(step)));
  }
  const fs::path torn = event_files(folder / "run").at(0);
  fs::rename(torn, folder / "run/events.out.tfevents.1.earlier.1");      // as an earlier process called it
  fs::resize_file(folder / "run/events.out.tfevents.1.earlier.1", 100);  // and a kill tore it
  const RunFolder run(folder / "run", "auto");
  Reporter report(&run, Progress::none);
  report.rewind(3);
  for (int64_t step = 4; step <= 6; ++step) report.metric(train_line(step, 10.0 * static_cast<double>(step)));
  report.metric(Json::object().set("event", "done").set("step", 6));
  ASSERT_EQ(event_files(folder / "run").size(), 1u);
  std::vector<std::pair<int64_t, float>> losses;
  for (const Event& event : read_events(event_files(folder / "run").front()))
    for (const auto& [tag, value] : event.scalars) losses.emplace_back(event.step, value);
  EXPECT_THAT(losses,
              ElementsAre(Pair(1, 1.f), Pair(2, 2.f), Pair(3, 3.f), Pair(4, 40.f), Pair(5, 50.f), Pair(6, 60.f)));
}

TEST(TensorBoard, ARunThatStartsAnewForgetsWhatWasThere) {
  const test::TemporaryFolder folder;
  const RunFolder run(folder / "run", "auto");
  test::write_file(run / "events.out.tfevents.1.earlier.1", "anything");
  for (const char* copy :
       {"events.out.tfevents.1.earlier.1.bak", "events.out.tfevents.mine", "events.out.tfevents.1.2"})
    test::write_file(run / copy, "the user's");
  test::write_file(run / "metrics.jsonl", "{\"step\":1,\"split\":\"train\",\"loss\":1.0}\n");
  Reporter report(&run, Progress::none);
  report.rewind(-1);
  for (const char* copy :
       {"events.out.tfevents.1.earlier.1.bak", "events.out.tfevents.mine", "events.out.tfevents.1.2"})
    EXPECT_TRUE(fs::remove(run / copy)) << copy;
  ASSERT_EQ(event_files(run.path()).size(), 1u);
  EXPECT_TRUE(tags_and_steps(read_events(event_files(run.path()).front())).empty());
}

TEST(TensorBoard, OtherRanksWriteNothing) {
  Reporter report(nullptr, Progress::none);
  report.rewind(-1);
  report.metric(train_line(1, 1));
  SUCCEED();
}

}  // namespace
}  // namespace tessera
