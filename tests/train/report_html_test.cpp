// report.html and its charts.

#include "train/report_html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "support/html.h"
#include "support/paths.h"
#include "train/chart.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kRecipe = R"(job = "train"
[model]
path = "/somewhere/small_base"
init = ""
[data]
train = "/somewhere/train.jsonl"
eval = "/somewhere/held_out.jsonl"
completion_template = "<b>&\"'</b>"
[adapter]
method = "mos"
)";

Json train_line(int64_t step, double loss) {
  return Json::object()
      .set("step", step)
      .set("split", "train")
      .set("loss", loss)
      .set("lr", 1e-3 / static_cast<double>(step))
      .set("grad_norm", 0.5)
      .set("tokens", 1000 * step)
      .set("tokens_per_second", 2000.0)
      .set("step_seconds", 0.5)
      .set("peak_rss_bytes", int64_t{123'400'000});
}
Json eval_line(int64_t step, double loss) {
  return Json::object()
      .set("step", step)
      .set("split", "eval")
      .set("loss", loss)
      .set("perplexity", std::exp(loss))
      .set("exact_match", 0.125 * static_cast<double>(step))
      .set("documents", 16);
}

std::vector<Json> small_run() {
  return {eval_line(0, 5.25), train_line(1, 5.5),  train_line(2, 4.0),
          train_line(3, 3.0), train_line(4, 2.75), eval_line(4, 2.5)};
}
std::vector<Json> finished_run() {
  auto lines = small_run();
  lines.push_back(Json::object().set("event", "done").set("step", 4).set("trained_parameters", 12288));
  return lines;
}

TEST(ReportHtml, IsWellFormed) {
  EXPECT_EQ(test::html_fault(report_html("run", finished_run(), kRecipe)), "");
  EXPECT_EQ(test::html_fault(report_html("run", small_run(), kRecipe)), "");
  EXPECT_EQ(test::html_fault(report_html("run", {}, "")), "");
}

TEST(ReportHtml, EscapesTheRecipeAndTheName) {
  const std::string page = report_html("a <run> & \"more\"", finished_run(), kRecipe);
  EXPECT_THAT(page, HasSubstr("completion_template = &quot;&lt;b&gt;&amp;\\&quot;&#39;&lt;/b&gt;&quot;"));
  EXPECT_THAT(page, HasSubstr("<h1>a &lt;run&gt; &amp; &quot;more&quot;</h1>"));
  EXPECT_THAT(page, Not(HasSubstr("<b>")));
  EXPECT_EQ(test::html_fault(page), "");
}

TEST(ReportHtml, SaysWhatWasTrained) {
  const std::string text = test::html_text(report_html("run", finished_run(), kRecipe));
  for (const char* part : {"small_base", "mos adapter", "train.jsonl", "held_out.jsonl", "12\u202f288", "4\u202f000",
                           "2.0 s", "123.4 MB", "finished"})
    EXPECT_THAT(text, HasSubstr(part));
}

/// The value of a row of facts.
std::string fact(const std::string& recipe, const std::string& name) {
  const std::string page = report_html("run", finished_run(), recipe), begin = name + "</th><td>";
  const size_t at = page.find(begin);
  return at == std::string::npos
             ? "no row"
             : page.substr(at + begin.size(), page.find('<', at + begin.size()) - at - begin.size());
}

TEST(ReportHtml, NamesTheMethodOfAdapterAndWeightsAndTheEstimator) {
  const std::string shared = "[sharing]\nmethod = \"rps\"\n";
  EXPECT_EQ(fact("", "method"), "all weights");
  EXPECT_EQ(fact("[adapter]\nmethod = \"none\"\n[sharing]\nmethod = \"none\"\n", "method"), "all weights");
  EXPECT_EQ(fact(shared, "method"), "shared weights (rps)");
  EXPECT_EQ(fact(shared + "[adapter]\nmethod = \"lora\"\n", "method"), "lora adapter");
  EXPECT_EQ(fact(shared + "[train]\nestimator = \"spsa\"\n", "estimator"), "spsa");
  EXPECT_EQ(fact(shared, "estimator"), "no row") << "of recipes that say nothing";
}

TEST(ReportHtml, TellsAStoppedRunFromAFinishedOne) {
  EXPECT_THAT(report_html("run", finished_run(), kRecipe), Not(HasSubstr("stopped before its end")));
  EXPECT_THAT(report_html("run", small_run(), kRecipe), HasSubstr("stopped before its end"));
}

TEST(ReportHtml, ComparesTheFirstAndTheLastEvaluation) {
  const std::string page = report_html("run", finished_run(), kRecipe);
  EXPECT_THAT(page, HasSubstr("at step 0</th><th scope=\"col\">at step 4"));
  EXPECT_THAT(page, HasSubstr("loss</th><td>5.25</td><td>2.5</td>"));
  EXPECT_THAT(page, HasSubstr("exact match</th><td>0</td><td>0.5</td>"));
}

TEST(ReportHtml, LeavesOutEvaluationsOfOtherRowsThanTheLast) {
  std::vector<Json> lines = small_run();
  lines.push_back(eval_line(4, 7.5).set("before", true));
  lines.push_back(eval_line(6, 7.25));
  const std::string page = report_html("run", lines, kRecipe);
  EXPECT_THAT(page, HasSubstr("at step 4</th><th scope=\"col\">at step 6</th>"));
  EXPECT_THAT(page, HasSubstr("loss</th><td>7.5</td><td>7.25</td>"));
  EXPECT_THAT(page, Not(HasSubstr("before</th>")));
}

TEST(ReportHtml, TellsTheFiguresOfEachFolderThatWasWritten) {
  std::vector<Json> lines = finished_run();
  lines.back()
      .set("eval_loss_trained", 2.5)
      .set("written", Json::object().set("model", Json::object().set("eval_loss", 2.75).set("eval_exact_match", 0.5)));
  const std::string page = report_html("run", lines, kRecipe);
  EXPECT_THAT(page, HasSubstr("model/</th><td>loss 2.75, exact match 0.5</td>"));
  EXPECT_THAT(page, HasSubstr("trained, before rounding</th><td>loss 2.5</td>"));
}

TEST(ReportHtml, SaysWhenNothingWasEvaluated) {
  EXPECT_THAT(report_html("run", {train_line(1, 2)}, kRecipe), HasSubstr("Nothing was evaluated."));
}

TEST(ReportHtml, ALossThatIsNotFiniteIsSaidAndNotDrawn) {
  auto lines = finished_run();
  lines.insert(lines.begin() + 5, Json::parse(R"({"step":4,"split":"train","loss":null})", "a line"));
  lines.back() = Json::parse(R"({"step":4,"split":"eval","loss":null})", "a line");
  const std::string page = report_html("run", lines, kRecipe);
  EXPECT_THAT(page, HasSubstr("<td>5.25</td><td>not finite</td>"));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
}

TEST(ReportHtml, NeedsNothingFromOutside) {
  const std::string page = report_html("run", finished_run(), kRecipe);
  for (const char* part : {"http", "src=", "href=", "url(", "@import", "<script"})
    EXPECT_THAT(page, Not(HasSubstr(part)));
}

TEST(ReportHtml, ALongRunStaysASmallPage) {
  std::vector<Json> lines;
  for (int64_t step = 1; step <= 100'000; ++step) lines.push_back(train_line(step, 1 + 5 / static_cast<double>(step)));
  EXPECT_LT(report_html("run", lines, kRecipe).size(), 60'000u);
}

TEST(ReportHtml, IsWrittenFromTheRunFolder) {
  const test::TemporaryFolder folder;
  std::string metrics;
  for (const Json& line : finished_run()) metrics += line.dump() + "\n";
  test::write_file(folder / "metrics.jsonl", metrics);
  test::write_file(folder / "recipe.toml", kRecipe);
  write_report(folder.path());
  EXPECT_EQ(test::read_file(folder / "report.html"),
            report_html(folder.path().filename().string(), finished_run(), kRecipe));
}

TEST(ShortNumber, GroupsWholeNumbersAndRoundsOthers) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(999), "999");
  EXPECT_EQ(short_number(1000), "1\u202f000");
  EXPECT_EQ(short_number(-1234567), "-1\u202f234\u202f567");
  EXPECT_EQ(short_number(0.123456), "0.1235");
  EXPECT_EQ(short_number(2e-5), "2e-05");
}

/// Points of the chart's first line, in pixels.
std::vector<std::pair<double, double>> drawn_points(const std::string& svg) {
  std::vector<std::pair<double, double>> points;
  std::smatch line;
  if (!std::regex_search(svg, line, std::regex("points=\"([^\"]*)\""))) return points;
  const std::string text = line[1];
  const std::regex pair("([-0-9.]+),([-0-9.]+)");
  for (auto at = std::sregex_iterator(text.begin(), text.end(), pair); at != std::sregex_iterator(); ++at)
    points.emplace_back(std::stod((*at)[1]), std::stod((*at)[2]));
  return points;
}

TEST(LineChart, LinearValuesLieInProportion) {
  const auto points = drawn_points(line_chart("c", "c", {{"a", {{0, 1.0}, {1, 1.5}, {2, 2.0}}}}));
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[1].first, (points[0].first + points[2].first) / 2, 0.1);
  EXPECT_NEAR(points[1].second, (points[0].second + points[2].second) / 2, 0.1);
  EXPECT_GT(points[0].second, points[2].second);  // larger is higher
}

TEST(LineChart, ValuesOverManyDecadesLieByTheirLogarithm) {
  const auto points = drawn_points(line_chart("c", "c", {{"a", {{0, 0.01}, {1, 1.0}, {2, 100.0}}}}));
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[1].second, (points[0].second + points[2].second) / 2, 0.1);
}

TEST(LineChart, EveryShapeOfDataStaysInTheFrame) {
  const std::vector<std::vector<std::pair<double, double>>> cases{{{0, 0}},
                                                                  {{5, 3}},
                                                                  {{1, 2}, {2, 2}},
                                                                  {{1, 0}, {2, 1e9}},
                                                                  {{1, -3}, {2, 4}},
                                                                  {{1, 1e-12}, {2, 1e12}},
                                                                  {{1, 1}, {2, 1 + 1e-12}}};
  for (const auto& values : cases) {
    const std::string svg = line_chart("c", "c", {{"a", values}});
    EXPECT_EQ(test::html_fault(svg), "");
    for (const auto& [x, y] : drawn_points(svg)) {
      EXPECT_TRUE(x >= 64 && x <= 704) << x << " of " << values.size();
      EXPECT_TRUE(y >= 28 && y <= 248) << y << " of " << values.size();
    }
    EXPECT_THAT(svg, HasSubstr("class=\"grid\""));
  }
}

TEST(LineChart, ManyPointsAreMeansOfRuns) {
  std::vector<std::pair<double, double>> values;
  for (int i = 0; i < 4000; ++i) values.emplace_back(i, 2 + (i % 2));
  const auto points = drawn_points(line_chart("c", "c", {{"a", values}, {"b", {{0, 2.0}, {4000, 3.0}}}}));
  EXPECT_EQ(points.size(), 400u);
  for (const auto& [x, y] : points) EXPECT_NEAR(y, points.front().second, 0.1);
}

TEST(LineChart, ReadersOfTextLearnTheEndsAndTheLowestPoint) {
  EXPECT_THAT(line_chart("c", "Loss", {{"a & b", {{1, 3.0}, {2, 1.5}, {3, 2.0}}}}),
              HasSubstr("a &amp; b: 3 at step 1, 2 at step 3, lowest 1.5 at step 2."));
}

TEST(LineChart, NothingToDrawIsNoChart) { EXPECT_EQ(line_chart("c", "c", {{"a", {}}}), ""); }

}  // namespace
}  // namespace tessera
