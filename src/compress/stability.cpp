#include "compress/stability.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/functions/functions.h"

namespace tessera {
namespace {

using Questions = std::vector<const QuestionResult*>;

Questions by_name(std::span<const QuestionResult> results) {
  Questions sorted;
  for (const QuestionResult& result : results) sorted.push_back(&result);
  std::ranges::sort(sorted, {}, &QuestionResult::name);
  return sorted;
}

[[noreturn]] void refuse(const std::string& task, const std::string& what, const std::string& hint) {
  throw UserError("", fmt::format("stability: task {} {}", task, what), hint);
}

constexpr const char* kSameQuestions = "evaluate both models on the same questions";

void require_options(const std::string& task, const QuestionResult& question) {
  const size_t options = question.nll.size();
  if (options < 2)
    refuse(task, options == 1 ? "has one option" : "has no options",
           fmt::format("question \"{}\" leaves nothing to choose from: name tasks of multiple choice", question.name));
  for (const double nll : question.nll)
    if (!std::isfinite(functions::exp(nll)))
      refuse(task, fmt::format("has an option of question \"{}\" whose perplexity is not finite", question.name),
             "the model is damaged, or the question has a token that it never gives");
}

/// Both lists have the same questions, once each.
void require_same(const std::string& task, const Questions& original, const Questions& compressed) {
  if (original.empty()) refuse(task, "has no questions", "evaluate both models on it first");
  for (size_t i = 0; i < std::max(original.size(), compressed.size()); ++i) {
    if (i >= original.size() || i >= compressed.size() || original[i]->name != compressed[i]->name) {
      const Questions& longer = i < original.size() ? original : compressed;
      refuse(task, fmt::format("has question \"{}\" in one list of results alone", longer[i]->name), kSameQuestions);
    }
    const QuestionResult& question = *original[i];
    if (i > 0 && original[i - 1]->name == question.name)
      refuse(task, fmt::format("has question \"{}\" twice", question.name), "give each question a name of its own");
    require_options(task, question);
    if (question.nll.size() != compressed[i]->nll.size())
      refuse(task, fmt::format("has other options of question \"{}\" in the two lists of results", question.name),
             kSameQuestions);
  }
}

/// Of values over the largest of them, whose squares would overflow.
double deviation(std::vector<double> values) {
  const double largest = std::abs(*std::ranges::max_element(values, {}, [](double x) { return std::abs(x); }));
  if (largest == 0) return 0;
  for (double& value : values) value /= largest;
  const auto count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return largest * std::sqrt(squares / count);
}

/// exp(d) over their sum, the largest d taken out so that nothing overflows.
std::vector<double> softmax(std::vector<double> d) {
  const double largest = *std::ranges::max_element(d);
  for (double& value : d) value = functions::exp(value - largest);
  const double sum = std::accumulate(d.begin(), d.end(), 0.0);
  for (double& value : d) value /= sum;
  return d;
}

std::vector<double> perplexities(std::vector<double> nll) {
  for (double& value : nll) value = functions::exp(value);
  return nll;
}

}  // namespace

Stability stability_of(const std::string& task, std::span<const QuestionResult> original,
                       std::span<const QuestionResult> compressed) {
  const Questions before = by_name(original), after = by_name(compressed);
  require_same(task, before, after);
  std::vector<double> of_perplexity, of_nll;
  for (const QuestionResult* question : before) {
    of_perplexity.push_back(deviation(perplexities(question->nll)));
    of_nll.push_back(deviation(question->nll));
  }
  const std::vector<double> weights = softmax(std::move(of_perplexity)), by_nll = softmax(std::move(of_nll));
  Stability found;
  double squares = 0, consistent = 0, sum = 0, sum_nll = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    squares += weights[i] * weights[i];
    const bool is_consistent = before[i]->is_right == after[i]->is_right;
    consistent += is_consistent ? 1 : 0;
    sum += is_consistent ? weights[i] : 0;
    sum_nll += is_consistent ? by_nll[i] : 0;
  }
  const auto count = static_cast<double>(before.size());
  const bool are_all = consistent == count;  // then exactly 1, whatever the weights round to
  found.effective = 1 / squares;
  found.stability = are_all ? 1 : sum;
  found.stability_nll = are_all ? 1 : sum_nll;
  found.agreement = consistent / count;
  return found;
}

}  // namespace tessera
