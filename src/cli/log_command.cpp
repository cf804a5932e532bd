// Nothing is written, so that it can be asked while the run goes on.

#include "cli/log_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "cli/jobs.h"
#include "cli/log_summary.h"
#include "core/error.h"
#include "io/files.h"
#include "io/output.h"

namespace tessera {
namespace {

constexpr size_t kMachinesShown = 16;
constexpr std::chrono::milliseconds kPause{300};  // between two looks at a log that is followed

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

Json machines_json(const std::vector<uint32_t>& machines) {
  Json list = Json::array();
  for (const uint32_t machine : machines) list.push_back(int64_t{machine});
  return list;
}

Json changes_json(const std::vector<RosterChange>& roster, bool joins) {
  std::vector<uint32_t> machines;
  for (const RosterChange& change : roster)
    if (change.add == joins) machines.push_back(change.machine);
  return machines_json(machines);
}

Json late_json(const std::vector<LateGroup>& groups) {
  Json list = Json::array();
  for (const LateGroup& group : groups)
    list.push_back(Json::object()
                       .set("seed_round", int64_t{group.seed_round})
                       .set("machines", machines_json(group.machines))
                       .set("votes", group.votes));
  return list;
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
      .set("median", optional_number(line.median))
      .set("late", line.late)
      .set("late_groups", late_json(line.late_groups))
      .set("clipped", line.clipped)
      .set("absent", machines_json(line.absent))
      .set("joined", changes_json(line.roster, true))
      .set("left", changes_json(line.roster, false))
      .set("conflict", line.had_conflict);
}

Json machine_json(const MachineLine& line, const NamesOfMachines& names) {
  const auto name = names.find(line.machine);
  return Json::object()
      .set("machine", int64_t{line.machine})
      .set("node", name == names.end() ? Json() : Json(name->second))
      .set("lane", int64_t{line.lane})
      .set("joined", int64_t{line.joined})
      .set("left", line.left ? Json(int64_t{*line.left}) : Json())
      .set("why", line.left ? Json(line.why()) : Json())
      .set("voted", line.voted)
      .set("late", line.late)
      .set("absent", line.absent)
      .set("clipped", line.clipped);
}

Json mark_json(const Mark& mark) {
  Json json = Json::object().set("round", int64_t{mark.round}).set("digest", mark.digest);
  if (mark.sha256.empty()) return json.set("machine", int64_t{mark.machine});
  return json.set("sha256", mark.sha256).set("bytes", mark.bytes);
}

void print_json(const LogSummary& s, size_t last) {
  Json machines = Json::array();
  for (const MachineLine& line : s.machines) machines.push_back(machine_json(line, s.names));
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
                        .set("machines", machines)
                        .set("reseeds", s.reseeds)
                        .set("conflicts", s.conflicts)
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

void print_header(const LogSummary& s) {
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

std::string roster_in_words(const std::vector<std::optional<uint32_t>>& roster, const NamesOfMachines& names) {
  std::string text;
  size_t shown = 0;
  for (const auto& machine : roster) {
    if (!machine) continue;
    if (++shown <= kMachinesShown)
      text += fmt::format("{}{}", shown == 1 ? "" : " ", machine_in_words(*machine, names));
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

void print_totals(const LogSummary& s, size_t last) {
  print_out("rounds      {}{}, {}\n", s.total_rounds,
            s.first_round > 0 ? fmt::format(" (the first {} were dropped)", s.first_round) : "",
            s.ended ? "ended" : "not ended");
  print_out("voters      {}\n", roster_in_words(s.roster, s.names));
  if (s.votes == 0)
    print_out("votes       0; {} bytes on disk\n", s.bytes);
  else
    print_out("votes       {}, {:.2f} % valid; {} bytes on disk, {:.2f} a vote\n", s.votes,
              100 * *ratio(s.valid, s.votes), s.bytes, *ratio(s.bytes, s.votes));
  print_out("digests     {}\n", marks_in_words(s.digests, last));
  print_out("snapshots   {}\n", marks_in_words(s.snapshots, last));
  if (s.reseeds + s.conflicts > 0)
    print_out("engine      {} times filled again after it lost its tail; {} records by packers that had lost a place\n",
              s.reseeds, s.conflicts);
  for (const std::string& notice : s.notices) print_out("notice      {}\n", notice);
}

/// Who came and went: of runs in which somebody did.
void print_machines(const LogSummary& s) {
  const auto is_eventful = [&](const MachineLine& line) {
    return line.left || line.late > 0 || line.absent > 0 || line.joined > s.machines.front().joined;
  };
  if (s.names.empty() && std::ranges::none_of(s.machines, is_eventful)) return;
  // Rounds are counted from 1 here, as steps are.
  const auto row = [](const auto&... cells) {
    print_out("{:>12} {:>10} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n", cells...);
  };
  print_out("\n");
  row("machine", "node", "lane", "joined", "left", "why", "voted", "late", "absent", "clipped");
  for (const MachineLine& line : s.machines) {
    const auto name = s.names.find(line.machine);
    row(line.machine, name == s.names.end() ? "" : name->second, line.lane, int64_t{line.joined} + 1,
        line.left ? fmt::format("{}", int64_t{*line.left} + 1) : "", line.why(), line.voted, line.late, line.absent,
        line.clipped);
  }
}

std::string machines_in_words(const std::vector<uint32_t>& machines, const NamesOfMachines& names) {
  std::string text;
  for (size_t i = 0; i < std::min(machines.size(), kMachinesShown); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : " ", machine_in_words(machines[i], names));
  return machines.size() > kMachinesShown ? fmt::format("{} machines: {} ...", machines.size(), text) : text;
}

std::string events_in_words(const RoundLine& line, const NamesOfMachines& names) {
  std::vector<std::string> events;
  for (const LateGroup& group : line.late_groups)
    events.push_back(fmt::format("{} late votes of round {}: {}", group.votes, int64_t{group.seed_round} + 1,
                                 machines_in_words(group.machines, names)));
  if (line.clipped > 0) events.push_back(fmt::format("{} clipped", line.clipped));
  for (size_t i = 0; i < std::min(line.roster.size(), kMachinesShown); ++i) {
    const RosterChange& change = line.roster[i];
    events.push_back(fmt::format("{} {} lane {}", machine_in_words(change.machine, names),
                                 change.add ? "gets" : "leaves", change.lane));
  }
  if (line.roster.size() > kMachinesShown)
    events.push_back(fmt::format("{} more get or leave a lane", line.roster.size() - kMachinesShown));
  if (!line.absent.empty()) events.push_back("absent: " + machines_in_words(line.absent, names));
  return fmt::format("{}", fmt::join(events, "; "));
}

void print_rounds(const LogSummary& s, size_t begin) {
  for (size_t i = begin; i < s.rounds.size(); ++i) {
    const RoundLine& line = s.rounds[i];
    const std::string events = events_in_words(line, s.names);
    print_out("{:>8} {:>11} {:>7} {:>7} {:>11.3e} {:>5} {:>9} {:>11}{}\n", line.step(),
              fmt::format("{}/{}", line.machines, line.lanes), line.votes, line.valid, line.alpha,
              fmt::format("2^{}", -line.unit), line.loss ? fmt::format("{:.4f}", *line.loss) : "-",
              line.median ? fmt::format("{:.4g}", *line.median) : "-", events.empty() ? "" : "  " + events);
  }
}

void print_table(const LogSummary& s, size_t last) {
  const size_t count = std::min(last, s.rounds.size());
  if (count == 0) return;
  print_out("\n{:>8} {:>11} {:>7} {:>7} {:>11} {:>5} {:>9} {:>11}\n", "round", "machines", "votes", "valid", "alpha",
            "unit", "loss", "median |g|");
  print_rounds(s, s.rounds.size() - count);
}

/// The round behind the last one that is there: one more than were counted may have been read.
int64_t next_round(const LogSummary& s) {
  return s.rounds.empty() ? s.total_rounds : std::max(s.total_rounds, int64_t{s.rounds.back().round} + 1);
}

/// What is written from now on, until the log has its END or nobody reads any more.
void follow(LogReading& reading, bool as_json) {
  int64_t told = next_round(reading.summary());
  while (!reading.summary().ended) {
    if (!flush_output()) return;
    std::this_thread::sleep_for(kPause);
    reading.read_on();
    const LogSummary& s = reading.summary();
    const auto is_told = [&](const RoundLine& line) { return int64_t{line.round} < told; };
    const auto begin = static_cast<size_t>(std::ranges::find_if_not(s.rounds, is_told) - s.rounds.begin());
    if (!as_json) print_rounds(s, begin);
    for (size_t i = begin; as_json && i < s.rounds.size(); ++i) print_out("{}\n", round_json(s.rounds[i]).dump());
    told = std::max(told, next_round(s));
  }
  if (!as_json) print_out("the log has its END\n");
}

}  // namespace

int log_command(const std::filesystem::path& run, const LogRequest& request) {
  LogReading reading(run);
  const LogSummary& summary = reading.summary();
  if (request.as_json) {
    print_json(summary, static_cast<size_t>(request.last.value_or(static_cast<int64_t>(summary.rounds.size()))));
  } else {
    const auto shown = static_cast<size_t>(request.last.value_or(10));
    print_header(summary);
    print_totals(summary, shown);
    print_machines(summary);
    print_table(summary, shown);
  }
  if (request.follows) follow(reading, request.as_json);
  return kDone;
}

}  // namespace tessera
