#include "infer/journal/journal_lines.h"

#include <charconv>

#include "core/crc32.h"
#include "core/error.h"
#include "io/file_descriptor.h"

namespace tessera {
namespace {

constexpr std::string_view kFormat = "tessera-journal", kEnd = "{\"end\":";
constexpr int64_t kVersion = 1;
constexpr size_t kCrcDigits = 8;

template <class Number> Number number_of(std::string_view digits, int base, const char* what) {
  Number number{};
  const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (digits.empty() || fault != std::errc() || end != digits.data() + digits.size())
    throw UserError("", fmt::format("the line has no {}", what));
  return number;
}

}  // namespace

std::string head_line(const JournalHead& head) {
  Json made_on = Json::object();
  for (const auto& [name, value] : head.made_on) made_on.set(name, value);
  Json json = Json::object().set("format", kFormat).set("version", kVersion).set("identity", head.identity.hex());
  const Json identity = to_json(head.identity);
  for (const auto& [name, value] : identity.members()) json.set(name, value);
  return json.set("made_on", std::move(made_on)).set("answers", head.answers).dump();
}

JournalHead read_head_line(std::string_view line) {
  const Json json = Json::parse(line, "");
  if (!json.find("format") || json.at("format").as_string() != kFormat)
    throw UserError("", "the first line is not that of a journal of answers");
  if (json.at("version").as_integer() != kVersion)
    throw UserError("", fmt::format("the journal is of version {}, and this program reads {}",
                                    json.at("version").as_integer(), kVersion));
  JournalHead head{.identity = run_identity_of(json)};
  if (const Json* answers = json.find("answers"))
    head.answers = answers->as_string();  // missing in the oldest journals
  for (const auto& [name, value] : json.at("made_on").members()) head.made_on[name] = value.as_string();
  if (json.at("identity").as_string() != head.identity.hex())
    throw UserError("", "\"identity\" is not the hash of what the line says");
  return head;
}

std::string end_line(const std::string& sha256) { return Json::object().set("end", sha256).dump(); }

bool is_end_line(std::string_view line) { return line.starts_with(kEnd); }

std::string read_end_line(std::string_view line) { return Json::parse(line, "").at("end").as_string(); }

std::string answer_line(int64_t number, std::string_view answer) {
  TS_CHECK(answer.find('\n') == std::string_view::npos, "an answer is one line");
  const std::string rest = fmt::format("{} {}", number, answer);
  return fmt::format("{:08x} {}", crc32(rest), rest);
}

AnswerLine read_answer_line(std::string_view line) {
  if (line.size() <= kCrcDigits || line[kCrcDigits] != ' ') throw UserError("", "the line has no checksum");
  const auto crc = number_of<uint32_t>(line.substr(0, kCrcDigits), 16, "checksum");
  const std::string_view rest = line.substr(kCrcDigits + 1);
  if (crc32(rest) != crc)
    throw UserError("", fmt::format("the checksum is {:08x}, and the line says {:08x}", crc32(rest), crc));
  const size_t space = rest.find(' ');
  if (space == std::string_view::npos) throw UserError("", "the line has no answer");
  const auto number = number_of<int64_t>(rest.substr(0, space), 10, "number");
  if (std::to_string(number) != rest.substr(0, space)) throw UserError("", "the line has no number");
  return {number, rest.substr(space + 1)};
}

int64_t for_each_whole_line(const std::filesystem::path& path,
                            const std::function<void(std::string_view, int64_t)>& use) {
  constexpr size_t kPiece = size_t{1} << 20;
  const FileDescriptor file = FileDescriptor::open_to_read(path);
  std::string text;  // from `begin` on: whole lines are dropped after each piece
  int64_t begin = 0;
  for (bool is_all = false; !is_all;) {
    const size_t had = text.size();
    text.resize(had + kPiece);
    const size_t got = file.read(std::as_writable_bytes(std::span(text).subspan(had)));
    text.resize(had + got);
    is_all = got < kPiece;
    size_t done = 0;
    for (size_t end; (end = text.find('\n', std::max(done, had))) != std::string::npos; done = end + 1)
      use(std::string_view(text).substr(done, end - done), begin + static_cast<int64_t>(done));
    text.erase(0, done);
    begin += static_cast<int64_t>(done);
  }
  return begin;
}

}  // namespace tessera
