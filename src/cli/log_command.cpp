// Nothing is written, so that it can be asked while the run goes on.

#include "cli/log_command.h"

#include <algorithm>
#include <cmath>

#include "cli/jobs.h"
#include "core/error.h"
#include "io/files.h"
#include "io/output.h"
#include "train/spsa/rounds.h"
#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

constexpr size_t kMachinesShown = 16;

struct RoundLine {
  uint32_t round = 0;  // the record's number, from 0 on
  int64_t machines = 0, lanes = 0, votes = 0, valid = 0;
  double alpha = 0, mul = 1;
  int unit = 0;
  std::optional<double> loss, median;  // median: of |g|
  /// What everything but the record calls it: the first is 1, and after it a round is done.
  int64_t step() const { return int64_t{round} + 1; }
};

/// A record that says what the state is after a round.
struct Mark {
  uint32_t round = 0, machine = 0;
  std::string digest, sha256;  // sha256, bytes: of a snapshot's file
  int64_t bytes = 0;
};

struct Summary {
  RunHeader header;
  std::string run, folder;
  std::vector<std::string> notices;
  std::vector<std::optional<uint32_t>> roster;
  std::vector<RoundLine> rounds;
  std::vector<Mark> digests, snapshots;
  int64_t first_round = 0, total_rounds = 0, records = 0, bytes = 0, votes = 0, valid = 0;
  bool ended = false;
};

class Reading {
 public:
  explicit Reading(const RunHeader& header) : header_(header), unit_(header.unit_of(header.unit)) {}

  RoundLine line_of(const Record& record) {
    RoundLine line;
    line.round = record.round;
    line.lanes = record.lanes;
    line.alpha = static_cast<double>(record.alpha);
    line.mul = static_cast<double>(record.mul);
    line.unit = unit_;
    std::vector<int64_t> magnitudes;
    count(record.present, record.bytes, line, &magnitudes);
    for (const ExtraGroup& late : record.extra) count(late.present, late.bytes, line, nullptr);
    if (!magnitudes.empty()) {
      const auto middle = magnitudes.begin() + static_cast<int64_t>((magnitudes.size() - 1) / 2);
      std::nth_element(magnitudes.begin(), middle, magnitudes.end());
      line.median = std::ldexp(static_cast<double>(*middle), -unit_);
    }
    if (!record.losses.empty()) {
      double sum = 0;
      for (const uint16_t bits : record.losses) sum += static_cast<double>(to_float(Float16{bits}));
      line.loss = sum / static_cast<double>(record.losses.size());
    }
    unit_ = header_.unit_of(record.unit_exp);
    return line;
  }

 private:
  void count(const std::vector<bool>& present, std::span<const uint8_t> bytes, RoundLine& line,
             std::vector<int64_t>* magnitudes) const {
    if (magnitudes) line.machines = std::count(present.begin(), present.end(), true);
    const auto width = static_cast<size_t>(header_.bytes_per_probe());
    for (; bytes.size() >= width; bytes = bytes.subspan(width)) {
      ++line.votes;
      const auto value = read_vote(header_, bytes.first(width));
      line.valid += value.has_value();
      if (value && magnitudes) magnitudes->push_back(std::abs(int64_t{*value}));
    }
  }

  const RunHeader& header_;
  int unit_;  // in force for the next round's votes
};

Mark mark_of(const Record& record) {
  Mark mark;
  mark.round = record.round;
  mark.machine = record.machine;
  mark.digest = StateDigest{record.digest[0], record.digest[1]}.text();
  if (record.type == RecordType::snapshot) {
    mark.sha256 = hex_text(record.sha256);
    mark.bytes = static_cast<int64_t>(record.file_bytes);
  }
  return mark;
}

Summary summary_of(const std::filesystem::path& run) {
  const RunPlaces places = find_log(run);
  const StepLog log = StepLog::open(places.log, {.access = StepLog::Access::read});
  Summary s;
  s.folder = places.log.string();
  s.header = RunHeader::parse(log.header(), (places.log / "header.json").string());
  s.run = sha256_hex(log.header());
  s.notices = log.notices();
  s.roster = log.chain().roster();
  s.ended = log.chain().ended();
  s.bytes = log.bytes_on_disk();
  s.total_rounds = rounds_in(log);
  Reading reading(s.header);
  log.for_each(log.first_index(), [&](const Record& record, std::span<const std::byte>) {
    ++s.records;
    if (record.type == RecordType::round) s.rounds.push_back(reading.line_of(record));
    if (record.type == RecordType::digest) s.digests.push_back(mark_of(record));
    if (record.type == RecordType::snapshot) s.snapshots.push_back(mark_of(record));
    return true;
  });
  for (const RoundLine& line : s.rounds) {
    s.votes += line.votes;
    s.valid += line.valid;
  }
  s.first_round = s.rounds.empty() ? s.total_rounds : s.rounds.front().round;
  return s;
}

std::optional<double> ratio(int64_t part, int64_t whole) {
  if (whole == 0) return std::nullopt;
  return static_cast<double>(part) / static_cast<double>(whole);
}

/// Numbers of a manifest line: "name [3, 4] from 128".
int64_t numbers_of(const std::string& line) {
  const size_t end = line.rfind("] from ");
  const size_t begin = end == std::string::npos ? end : line.rfind('[', end);
  if (begin == std::string::npos) return 0;
  int64_t product = 1;
  for (size_t at = begin + 1; at < end;) {
    const size_t comma = std::min(line.find(',', at), end);
    product *= std::stoll(line.substr(at, comma - at));
    at = comma + 1;
  }
  return product;
}

int64_t trained_numbers(const RunHeader& header) {
  int64_t count = 0;
  for (const std::string& line : header.manifest) count += numbers_of(line);
  return count;
}

const char* votes_in_words(VoteKind votes) {
  return votes == VoteKind::byte ? "byte" : votes == VoteKind::sign ? "sign" : "float32";
}

std::string directions_in_words(const RunHeader& header) {
  switch (header.family) {
    case Family::independent:
      return "independent";
    case Family::shared:
      return "shared";
    case Family::pool:
      return fmt::format("pool of {}", header.lanes);
    case Family::hadamard:
      return fmt::format("hadamard of {}", header.lanes);
  }
  return "";
}

std::string method_of(const RunHeader& header) {
  if (header.selection == "all") return "all weights";
  const Json descriptor = Json::parse(header.selection, "the log's header");
  const Json* method = descriptor.find("method");
  return method && method->is_string() ? method->as_string() : header.selection;
}

// --- for programs

Json optional_number(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

Json header_json(const RunHeader& h) {
  return Json::object()
      .set("probes", h.m)
      .set("eps", h.eps)
      .set("votes", votes_in_words(h.votes))
      .set("unit", int64_t{h.unit})
      .set("adapt_unit", h.adapt_unit)
      .set("clip", h.clip)
      .set("directions", directions_in_words(h))
      .set("seed", fmt::format("{}", h.seed))
      .set("optimizer", h.optimizer)
      .set("momentum", h.momentum)
      .set("digest_every", h.digest_every)
      .set("trained", method_of(h))
      .set("trained_tensors", static_cast<int64_t>(h.manifest.size()))
      .set("trained_numbers", trained_numbers(h))
      .set("base", h.base)
      .set("start", h.start)
      .set("parent", h.parent.empty() ? Json() : Json(h.parent));
}

Json round_json(const RoundLine& line) {
  return Json::object()
      .set("round", int64_t{line.round})
      .set("step", line.step())
      .set("machines", line.machines)
      .set("lanes", line.lanes)
      .set("votes", line.votes)
      .set("valid", line.valid)
      .set("alpha", line.alpha)
      .set("mul", line.mul)
      .set("unit", int64_t{line.unit})
      .set("loss", optional_number(line.loss))
      .set("median", optional_number(line.median));
}

Json mark_json(const Mark& mark) {
  Json json = Json::object().set("round", int64_t{mark.round}).set("digest", mark.digest);
  if (mark.sha256.empty()) return json.set("machine", int64_t{mark.machine});
  return json.set("sha256", mark.sha256).set("bytes", mark.bytes);
}

void print_json(const Summary& s, size_t last) {
  Json roster = Json::array(), notices = Json::array(), digests = Json::array(), snapshots = Json::array(),
       rounds = Json::array();
  for (const auto& machine : s.roster) roster.push_back(machine ? Json(int64_t{*machine}) : Json());
  for (const std::string& notice : s.notices) notices.push_back(notice);
  for (const Mark& mark : s.digests) digests.push_back(mark_json(mark));
  for (const Mark& mark : s.snapshots) snapshots.push_back(mark_json(mark));
  for (size_t i = s.rounds.size() - std::min(last, s.rounds.size()); i < s.rounds.size(); ++i)
    rounds.push_back(round_json(s.rounds[i]));
  print_out("{}\n", Json::object()
                        .set("log", s.folder)
                        .set("run", s.run)
                        .set("header", header_json(s.header))
                        .set("round", s.total_rounds)
                        .set("first_round", s.first_round)
                        .set("ended", s.ended)
                        .set("roster", roster)
                        .set("records", s.records)
                        .set("votes", s.votes)
                        .set("votes_valid", optional_number(ratio(s.valid, s.votes)))
                        .set("bytes", s.bytes)
                        .set("bytes_per_vote", optional_number(ratio(s.bytes, s.votes)))
                        .set("digests", digests)
                        .set("snapshots", snapshots)
                        .set("notices", notices)
                        .set("rounds", rounds)
                        .dump());
}

// --- for people

void print_header(const Summary& s) {
  const RunHeader& h = s.header;
  print_out("{}\n", s.folder);
  print_out("run         {}\n", s.run);
  if (!h.parent.empty()) print_out("parent      {}\n", h.parent);
  print_out("base        {}\n", h.base.empty() ? "none: all weights are trained" : h.base);
  print_out("trained     {}: {} tensors, {} numbers; they start with digest {}\n", method_of(h), h.manifest.size(),
            trained_numbers(h), h.start);
  print_out("probes      {} a machine and round, eps {:g}, directions {}, seed {}\n", h.m, h.eps,
            directions_in_words(h), h.seed);
  print_out("votes       {}, in units of 2^-{}{}, {}\n", votes_in_words(h.votes), h.unit_of(h.unit),
            h.adapt_unit ? " to begin with" : "",
            h.clip > 0 ? fmt::format("clipped at {} medians", h.clip) : "not clipped");
  print_out("optimizer   {}{}\n", h.optimizer, h.momentum != 0 ? fmt::format(" with momentum {:g}", h.momentum) : "");
}

std::string roster_in_words(const std::vector<std::optional<uint32_t>>& roster) {
  std::string text;
  size_t shown = 0;
  for (const auto& machine : roster) {
    if (!machine) continue;
    if (++shown <= kMachinesShown) text += fmt::format("{}{}", shown == 1 ? "" : " ", *machine);
  }
  if (shown == 0) return "none yet";
  return shown > kMachinesShown ? fmt::format("{} machines: {} ...", shown, text) : "machine " + text;
}

std::string marks_in_words(const std::vector<Mark>& marks, size_t last) {
  if (marks.empty()) return "none";
  const size_t begin = marks.size() - std::min(std::max<size_t>(last, 1), marks.size());
  std::string text = begin > 0 ? fmt::format("{} before, ", begin) : "";
  for (size_t i = begin; i < marks.size(); ++i)
    text += fmt::format("{}round {} {}", i == begin ? "" : ", ", marks[i].round, marks[i].digest);
  return text;
}

void print_totals(const Summary& s, size_t last) {
  print_out("rounds      {}{}, {}\n", s.total_rounds,
            s.first_round > 0 ? fmt::format(" (the first {} were dropped)", s.first_round) : "",
            s.ended ? "ended" : "not ended");
  print_out("voters      {}\n", roster_in_words(s.roster));
  if (s.votes == 0)
    print_out("votes       0; {} bytes on disk\n", s.bytes);
  else
    print_out("votes       {}, {:.2f} % valid; {} bytes on disk, {:.2f} a vote\n", s.votes,
              100 * *ratio(s.valid, s.votes), s.bytes, *ratio(s.bytes, s.votes));
  print_out("digests     {}\n", marks_in_words(s.digests, last));
  print_out("snapshots   {}\n", marks_in_words(s.snapshots, last));
  for (const std::string& notice : s.notices) print_out("notice      {}\n", notice);
}

void print_table(const Summary& s, size_t last) {
  const size_t count = std::min(last, s.rounds.size());
  if (count == 0) return;
  print_out("\n{:>8} {:>11} {:>7} {:>7} {:>11} {:>5} {:>9} {:>11}\n", "round", "machines", "votes", "valid", "alpha",
            "unit", "loss", "median |g|");
  for (size_t i = s.rounds.size() - count; i < s.rounds.size(); ++i) {
    const RoundLine& line = s.rounds[i];
    print_out("{:>8} {:>11} {:>7} {:>7} {:>11.3e} {:>5} {:>9} {:>11}\n", line.step(),
              fmt::format("{}/{}", line.machines, line.lanes), line.votes, line.valid, line.alpha,
              fmt::format("2^{}", -line.unit), line.loss ? fmt::format("{:.4f}", *line.loss) : "-",
              line.median ? fmt::format("{:.4g}", *line.median) : "-");
  }
}

}  // namespace

int log_command(const std::filesystem::path& run, std::optional<int64_t> last, bool as_json) {
  const Summary summary = summary_of(run);
  if (as_json) {
    print_json(summary, static_cast<size_t>(last.value_or(static_cast<int64_t>(summary.rounds.size()))));
  } else {
    const auto shown = static_cast<size_t>(last.value_or(10));
    print_header(summary);
    print_totals(summary, shown);
    print_table(summary, shown);
  }
  return kDone;
}

}  // namespace tessera
