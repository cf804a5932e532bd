#include "train/spsa/loose/attendance_html.h"

#include <algorithm>
#include <string_view>

#include "core/error.h"
#include "io/sha256.h"
#include "train/chart.h"
#include "train/html_page.h"
#include "train/spsa/attendance.h"
#include "train/spsa/loose/node_names.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMachinesShown = 100;

struct Told {
  std::vector<MachineLine> machines;
  int64_t reseeds = 0, conflicts = 0;
  NamesOfMachines names;
};

/// Nothing of a run whose machines are the same from its first round to its last.
std::optional<Told> read(const fs::path& run) {
  const StepLog log = StepLog::open(run / "log", {.access = StepLog::Access::read});
  const RunHeader header = RunHeader::parse(log.header(), (run / "log" / "header.json").string());
  if (!header.terms) return std::nullopt;
  Attendance attendance(header);
  RecentRounds before = rounds_before(log, header);
  log.for_each(log.first_index(), [&](const Record& record, std::span<const std::byte>) {
    (void)attendance.add(record, before);
    if (record.type == RecordType::round) before.accept(record);
    return true;
  });
  return Told{attendance.lines(), attendance.reseeds(), attendance.conflicts(),
              read_node_names(run / "nodes.json", sha256_hex(log.header()))};
}

std::string totals(const Told& told) {
  const auto count = [&](std::string_view why) {
    return std::ranges::count_if(told.machines, [&](const MachineLine& line) { return line.why() == why; });
  };
  int64_t late = 0, absent = 0, clipped = 0;
  for (const MachineLine& line : told.machines) {
    late += line.late;
    absent += line.absent;
    clipped += line.clipped;
  }
  return html_table({{"machines that took part", fmt::format("{}", told.machines.size())},
                     {"there at the end", fmt::format("{}", count(""))},
                     {"left", fmt::format("{}", count("left"))},
                     {"lost their lane by silence", fmt::format("{}", count("silent") + count("digest"))},
                     {"rounds voted in late, over all machines", fmt::format("{}", late)},
                     {"rounds without a vote", fmt::format("{}", absent)},
                     {"votes clipped", fmt::format("{}", clipped)},
                     {"records by packers that had lost a place", fmt::format("{}", told.conflicts)},
                     {"times the server's log was filled again", fmt::format("{}", told.reseeds)}});
}

std::string row(std::string_view cell, const std::vector<std::string>& cells) {
  std::string html = "<tr>";
  for (const std::string& text : cells) html += fmt::format("<{}>{}</{}>", cell, escape_html(text), cell.substr(0, 2));
  return html + "</tr>\n";
}

std::string table(const Told& told) {
  std::string html = "<table>\n" + row("th scope=\"col\"", {"machine", "node", "lane", "joined", "left", "why", "voted",
                                                            "late", "absent", "clipped"});
  const auto text = [](int64_t number) { return fmt::format("{}", number); };
  for (const MachineLine& line : std::span(told.machines).first(std::min(told.machines.size(), kMachinesShown))) {
    const auto name = told.names.find(line.machine);
    html += row("td", {text(line.machine), name == told.names.end() ? "" : name->second, text(line.lane),
                       text(int64_t{line.joined} + 1), line.left ? text(int64_t{*line.left} + 1) : "", line.why(),
                       text(line.voted), text(line.late), text(line.absent), text(line.clipped)});
  }
  html += "</table>\n";
  if (told.machines.size() > kMachinesShown)
    html += fmt::format("<p>and {} more: trainer log tells of all.</p>\n", told.machines.size() - kMachinesShown);
  return html;
}

}  // namespace

std::string attendance_html(const fs::path& run) {
  try {
    if (!fs::exists(run / "log" / "header.json")) return "";
    const auto told = read(run);
    return told ? html_heading("Machines") + totals(*told) + table(*told) : "";
  } catch (const UserError&) {  // the run itself has said what is wrong with its log
    return "";
  }
}

}  // namespace tessera
