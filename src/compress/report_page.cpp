#include "compress/report_page.h"

#include <fmt/core.h>

#include <algorithm>
#include <functional>

#include "compress/fold_pictures.h"
#include "compress/json_numbers.h"
#include "model/fold/plan_file.h"
#include "train/chart.h"
#include "train/html_page.h"

namespace tessera {
namespace {

std::string bytes_text(double bytes) {
  return bytes >= 1e9 ? fmt::format("{:.2f} GB", bytes * 1e-9) : fmt::format("{:.2f} MB", bytes * 1e-6);
}

/// A quantity of every point.
struct Quantity {
  std::string_view key, name;
  std::string (*text)(double);
};
constexpr Quantity kQuantities[] = {
    {"perplexity", "perplexity", [](double x) { return fmt::format("{:.4f}", x); }},
    {"nll", "negative log-likelihood", [](double x) { return fmt::format("{:.4f}", x); }},
    {"tokens", "scored tokens", short_number},
    {"layers_computed", "layers computed", short_number},
    {"blocks_stored", "blocks stored", short_number},
    {"parameters_stored", "parameters stored", short_number},
    {"parameters_computed", "parameters computed", short_number},
    {"bytes_disk", "on disk", bytes_text},
    {"bytes_resident", "read by a pass", bytes_text},
    {"peak_rss_bytes", "peak memory", bytes_text},
    {"kv_bytes_per_token", "cache a token", [](double x) { return short_number(x) + " bytes"; }},
    {"prefill_tokens_per_second", "tokens/s, prompt of 512", [](double x) { return fmt::format("{:.0f}", x); }},
    {"decode_tokens_per_second", "tokens/s, one by one", [](double x) { return fmt::format("{:.1f}", x); }},
    {"threads", "threads", short_number}};

/// "not finite" of a loss that overflowed, which files tell as null.
std::string told(const Json& point, const Quantity& quantity) {
  const Json* value = point.find(quantity.key);
  return value ? quantity.text(value->as_number()) : std::string("not finite");
}

std::string points_table(const Json& report) {
  std::string html = "<table>\n<tr><th scope=\"col\">point</th>";
  for (const Json& point : report.at("points").items())
    html += fmt::format("<th scope=\"col\">{}</th>", escape_html(point.at("name").as_string()));
  html += "</tr>\n";
  for (const Quantity& quantity : kQuantities) {
    html += fmt::format("<tr><th scope=\"row\">{}</th>", quantity.name);
    for (const Json& point : report.at("points").items()) html += "<td>" + told(point, quantity) + "</td>";
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

std::string facts(const Json& report) {
  const Json &base = report.at("base"), &corpus = report.at("corpus");
  return html_table(
      {{"model", base.at("path").as_string()},
       {"blocks", short_number(base.at("layers").as_number())},
       {"measured on", fmt::format("{} ({})", corpus.at("file").as_string(), corpus.at("rows").as_string())},
       {"tokens a row", short_number(corpus.at("sequence_length").as_number())}});
}

std::vector<std::vector<double>> rows_of(const Json& matrix) {
  std::vector<std::vector<double>> rows;
  for (const Json& row : matrix.items()) rows.push_back(numbers_of(row));
  return rows;
}

std::vector<std::string> names_of_gates(size_t gates, int64_t layers) {
  const bool are_halves = static_cast<int64_t>(gates) == 2 * layers;
  std::vector<std::string> names;
  for (size_t gate = 0; gate < gates; ++gate)
    names.push_back(are_halves ? fmt::format("block {} {}", gate / 2, gate % 2 == 0 ? "attention" : "MLP")
                               : fmt::format("block {}", gate));
  return names;
}

std::string gates_part(const Json& gates, int64_t layers) {
  const auto loss = [&](const char* key) {
    const Json* value = gates.find(key);
    return value ? fmt::format("{:.4f}", value->as_number()) : std::string("not finite");
  };
  const size_t count = gates.at("theta").items().size();
  return html_heading("Gates") +
         gates_picture(names_of_gates(count, layers), rows_of(gates.at("theta_every_10_steps")),
                       gates.at("steps").as_integer()) +
         html_table({{"losses of", "calibration rows of data.train"},
                     {"the original", loss("loss_original")},
                     {"with gates as they are", loss("loss_soft")},
                     {"with the lowest shut", loss("loss_hard")},
                     {"as many shut by influence", loss("loss_bi")}});
}

std::string commands_part(const Json& commands) {
  std::string all;
  for (const Json& command : commands.items()) all += command.as_string() + "\n";
  return html_heading("Commands") + "<pre>" + escape_html(all) + "</pre>\n";
}

}  // namespace

std::string report_page(const std::string& title, const Json& report) {
  const FoldPlan plan = parse_fold_plan(report.at("plan").dump(), "report.json");
  const Json *bi = report.find("bi"), *similarity = report.find("similarity"), *gates = report.find("gates");
  std::string body = facts(report) + html_heading("Points") + points_table(report) + html_heading("Plan") +
                     plan_picture(plan, bi ? numbers_of(*bi) : std::vector<double>());
  if (similarity) body += html_heading("Similarity of states") + similarity_picture(rows_of(*similarity));
  if (gates) body += gates_part(*gates, plan.base.layers);
  return html_page(title, body + commands_part(report.at("commands")), picture_style());
}

std::vector<std::string> report_lines(const Json& report) {
  constexpr std::string_view kKeys[] = {"perplexity",     "parameters_stored",         "bytes_disk",
                                        "bytes_resident", "prefill_tokens_per_second", "decode_tokens_per_second"};
  const Json& corpus = report.at("corpus");
  std::vector<std::string> lines = {
      fmt::format("report: perplexities of {} tokens of {} ({})", corpus.at("tokens").as_integer(),
                  corpus.at("file").as_string(), corpus.at("rows").as_string()),
      fmt::format("{:<10}{:>12}{:>15}{:>12}{:>12}{:>12}{:>12}", "point", "perplexity", "parameters", "on disk",
                  "resident", "prefill/s", "decode/s")};
  for (const Json& point : report.at("points").items()) {
    std::string line = fmt::format("{:<10}", point.at("name").as_string());
    for (const std::string_view key : kKeys) {
      const Quantity& quantity = *std::ranges::find(kQuantities, key, &Quantity::key);
      const std::string value =
          key == "parameters_stored" ? fmt::format("{}", point.at(key).as_integer()) : told(point, quantity);
      line += fmt::format("{:>{}}", value, key == "parameters_stored" ? 15 : 12);
    }
    lines.push_back(line);
  }
  return lines;
}

}  // namespace tessera
