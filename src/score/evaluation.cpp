#include "score/evaluation.h"

#include <fmt/core.h>

#include <cmath>

namespace tessera {

std::string evaluation_set(const PackedDataset& data, int64_t rows) {
  if (rows == 0 || rows >= data.rows()) return data.hash();
  return fmt::format("{} rows {}", data.hash(), rows);
}

Json evaluation_line(int64_t step, const LossSums& sums, Objective objective) {
  Json line = Json::object().set("step", step).set("split", "eval");
  if (sums.objective_count(objective) > 0) line.set("loss", sums.mean_loss(objective));
  if (sums.scored > 0)
    line.set("perplexity", std::exp(sums.mean_nll()))
        .set("token_accuracy", sums.token_accuracy())
        .set("tokens", sums.scored);
  if (sums.completions > 0) line.set("exact_match", sums.exact_match()).set("completions", sums.completions);
  if (sums.choices > 0) line.set("accuracy", sums.accuracy()).set("choices", sums.choices);
  return line;
}

std::string evaluation_text(int64_t step, const LossSums& sums, Objective objective) {
  std::string text = fmt::format("step {}  held-out", step);
  if (sums.objective_count(objective) > 0) text += fmt::format(" loss {:.4f}", sums.mean_loss(objective));
  if (sums.scored > 0)
    text += fmt::format("  perplexity {:.4g}  tokens right {:.1f} %", std::exp(sums.mean_nll()),
                        100 * sums.token_accuracy());
  if (sums.objective_count(objective) == 0) text += " rows have nothing to score";
  if (sums.completions > 0)
    text += fmt::format("  completions right {:.1f} % of {}", 100 * sums.exact_match(), sums.completions);
  if (sums.choices > 0) text += fmt::format("  choices right {:.1f} % of {}", 100 * sums.accuracy(), sums.choices);
  return text;
}

Json to_json(const LossSums& sums) {
  Json json = Json::object();
  LossSums::visit([&](const char* name, auto member) { json.set(name, sums.*member); });
  return json;
}

LossSums loss_sums_of(const Json& json) {
  LossSums sums;
  LossSums::visit([&](const char* name, auto member) {
    auto& number = sums.*member;
    using Number = std::decay_t<decltype(number)>;
    if (const Json* kept = json.find(name)) number = static_cast<Number>(kept->as_number());
  });
  if (sums.scored > 0 && !json.find("nll")) sums.nll = std::nan("");
  return sums;
}

}  // namespace tessera
