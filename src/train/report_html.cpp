// All that the page tells is in the run's folder: metrics.jsonl, of which each line has a split (train, eval) or an
// event, recipe.toml, and of loose nodes the log of rounds. So a report can be made again at any time, of a run that
// was killed, too.

#include "train/report_html.h"

#include <algorithm>

#include "core/error.h"
#include "core/recipe.h"
#include "io/files.h"
#include "io/hub_cache.h"
#include "train/chart.h"
#include "train/html_page.h"
#include "train/run_folder.h"
#include "train/spsa/loose/attendance_html.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Rows = std::vector<std::pair<std::string, std::string>>;  // name and value, not yet escaped

/// The few keys that say what a run was; read as text, wherever its paths were meant from.
struct ModelKeys {
  std::string path, init;
  void visit(Fields& v) {
    v("path", path, anything(), "");
    v("init", init, anything(), "");
  }
};
struct DataKeys {
  std::string train, eval;
  void visit(Fields& v) {
    v("train", train, anything(), "");
    v("eval", eval, anything(), "");
  }
};
struct MethodKey {
  std::string method;
  void visit(Fields& v) { v("method", method, anything(), ""); }
  bool is_given() const { return !method.empty() && method != "none"; }
};
struct EstimatorKey {
  std::string estimator;
  void visit(Fields& v) { v("estimator", estimator, anything(), ""); }
};

std::string file_name(const std::string& path) { return fs::path(path).filename().string(); }

bool is_split(const Json& line, std::string_view split) {
  const Json* found = line.find("split");
  return found && found->as_string() == split;
}

std::vector<Json> lines_of(const std::vector<Json>& lines, std::string_view split) {
  std::vector<Json> found;
  for (const Json& line : lines)
    if (is_split(line, split)) found.push_back(line);
  return found;
}

/// The evaluations that may be compared: those of other held-out rows, before a run went on with these, are left out.
std::vector<Json> evaluations(const std::vector<Json>& lines) {
  std::vector<Json> evals = lines_of(lines, "eval");
  // The newest line that begins a comparison, if any: what stands before it was found on other rows.
  const auto begin = std::find_if(evals.rbegin(), evals.rend(), [](const Json& line) { return line.find("before"); });
  if (begin != evals.rend()) evals.erase(evals.begin(), begin.base() - 1);
  return evals;
}

const Json* done_event(const std::vector<Json>& lines) {
  for (const Json& line : lines)
    if (const Json* event = line.find("event"); event && event->as_string() == "done") return &line;
  return nullptr;
}

/// The member, or nothing where it is absent or was not finite.
std::optional<double> number(const Json& line, std::string_view key) {
  const Json* found = line.find(key);
  return found && found->is_number() ? std::optional(found->as_number()) : std::nullopt;
}

Curve curve_of(const std::string& name, const std::vector<Json>& lines, std::string_view key) {
  Curve curve{name, {}};
  for (const Json& line : lines)
    if (const auto value = number(line, key)) curve.points.emplace_back(line.at("step").as_number(), *value);
  return curve;
}

std::string name_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

/// From the stored recipe: of its sections only the keys that are shown are read.
Rows what_was_trained(const std::string& recipe_text) {
  Recipe recipe = Recipe::from_text(recipe_text, "recipe.toml");
  ModelKeys model;
  DataKeys data;
  MethodKey adapter, sharing;
  EstimatorKey train;
  recipe.read("model", model);
  recipe.read("data", data);
  recipe.read("adapter", adapter);
  recipe.read("sharing", sharing);
  recipe.read("train", train);
  const std::string weights = sharing.is_given() ? fmt::format("shared weights ({})", sharing.method) : "all weights";
  Rows rows{{"model", title_of_model(model.path) + (model.init == "random" ? ", from random weights" : "")},
            {"method", adapter.is_given() ? adapter.method + " adapter" : weights}};
  if (!train.estimator.empty()) rows.emplace_back("estimator", train.estimator);
  rows.emplace_back("training data", file_name(data.train));
  if (!data.eval.empty()) rows.emplace_back("held-out data", file_name(data.eval));
  return rows;
}

Rows totals(const std::vector<Json>& lines) {
  const auto train = lines_of(lines, "train");
  const Json* done = done_event(lines);
  // Of this file's steps: a run that went on has those of all its processes here.
  double seconds = 0, peak = 0;
  for (const Json& line : train) {
    seconds += number(line, "step_seconds").value_or(0);
    peak = std::max(peak, number(line, "peak_rss_bytes").value_or(0));
  }
  Rows rows{{"state", done ? "finished" : "stopped before its end"}};
  if (done)
    if (const auto count = number(*done, "trained_parameters"))
      rows.emplace_back("trained parameters", short_number(*count));
  if (train.empty()) return rows;
  const double tokens = number(train.back(), "tokens").value_or(0);
  rows.emplace_back("steps", short_number(train.back().at("step").as_number()));
  rows.emplace_back("tokens", short_number(tokens));
  rows.emplace_back("training time", fmt::format("{:.1f} s", seconds));
  if (seconds > 0) rows.emplace_back("tokens per second", fmt::format("{:.0f}", tokens / seconds));
  rows.emplace_back("peak memory of rank 0", fmt::format("{:.1f} MB", peak / 1e6));
  return rows;
}

std::string evaluation_table(const std::vector<Json>& evals) {
  if (evals.empty()) return "<p>Nothing was evaluated.</p>\n";
  const Json &first = evals.front(), &last = evals.back();
  const auto cell = [](const Json& line, const std::string& key) {
    const auto value = number(line, key);
    return value ? short_number(*value) : std::string("not finite");
  };
  std::string html = fmt::format(
      "<table>\n<tr><th scope=\"col\">held-out</th><th scope=\"col\">at step {}</th><th scope=\"col\">at step {}</th></tr>\n",
      cell(first, "step"), cell(last, "step"));
  // The newest evaluation names the rows of the table; a figure that the first lacks is told as not finite.
  for (const auto& [key, member] : last.members()) {
    if (key == "step" || !(member.is_number() || member.is_null())) continue;
    html += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>\n", escape_html(name_of(key)),
                        cell(first, key), cell(last, key));
  }
  return html + "</table>\n";
}

/// The figures of each folder of results, as it stands on disk.
std::string written_table(const Json* done) {
  const Json* written = done ? done->find("written") : nullptr;
  if (!written) return "";
  Rows rows;
  for (const auto& [folder, figures] : written->members()) {
    std::string text;
    for (const auto& [key, value] : figures.members())
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name_of(key.substr(std::string_view("eval_").size())),
                          short_number(value.as_number()));
    rows.emplace_back(folder + "/", text);
  }
  if (const auto trained = number(*done, "eval_loss_trained"))
    rows.emplace_back("trained, before rounding", "loss " + short_number(*trained));
  return html_heading("What was written") + html_table(rows);
}

/// A chart without points is left out with its heading: SPSA has no gradient norm, for one.
std::string charts(const std::vector<Json>& train, const std::vector<Json>& evals) {
  const auto section = [](const std::string& title, const std::string& svg) {
    return svg.empty() ? std::string() : html_heading(title) + svg;
  };
  return section("Loss", line_chart("loss", "Loss by step",
                                    {curve_of("training", train, "loss"), curve_of("held-out", evals, "loss")})) +
         section("Learning rate", line_chart("lr", "Learning rate by step", {curve_of("learning rate", train, "lr")})) +
         section("Gradient norm",
                 line_chart("norm", "Gradient norm by step", {curve_of("gradient norm", train, "grad_norm")})) +
         section("Speed", line_chart("speed", "Tokens per second by step",
                                     {curve_of("tokens per second", train, "tokens_per_second")}));
}

}  // namespace

std::string report_html(const std::string& title, const std::vector<Json>& lines, const std::string& recipe,
                        const std::string& more) {
  const auto train = lines_of(lines, "train"), evals = evaluations(lines);
  Rows facts = what_was_trained(recipe);
  for (auto& row : totals(lines)) facts.push_back(std::move(row));
  return html_page(title, html_table(facts) + html_heading("Evaluation") + evaluation_table(evals) +
                              written_table(done_event(lines)) + charts(train, evals) + more + html_heading("Recipe") +
                              "<pre>" + escape_html(recipe) + "</pre>\n");
}

void write_report(const fs::path& folder) {
  // Made absolute first: a folder that was given as "." would have no name.
  const std::string title = fs::absolute(folder).lexically_normal().filename().string();
  write_text_file(folder / "report.html", report_html(title, MetricsFile(folder / "metrics.jsonl").lines(),
                                                      read_text_file(folder / "recipe.toml"), attendance_html(folder)));
}

}  // namespace tessera
