#include "train/spsa/header_terms.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "core/error.h"
#include "core/hex.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

constexpr std::array<const char*, 3> kAggregates = {"sum", "median", "trimmed"};
constexpr std::array<const char*, 3> kSchedules = {"constant", "linear", "cosine"};

void require(bool holds, const std::string& what) {
  if (!holds) throw UserError("", what, "the header was altered, or another program wrote it");
}

bool is_key(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::vector<std::string> signers_of(const Json& list) {
  std::vector<std::string> signers;
  for (const Json& item : list.items()) {
    const std::string& key = item.as_string();
    require(is_key(key), fmt::format("the signer \"{}\" is no public key of 64 hexadecimal digits", key));
    require(signers.empty() || signers.back() < key, "signers are not in ascending order, or one stands there twice");
    signers.push_back(key);
  }
  require(signers.size() <= 256, fmt::format("{} signers, 256 at most", signers.size()));
  return signers;
}

std::optional<HeaderTerms::Privacy> privacy_of(const Json* json) {
  if (!json || json->is_null()) return std::nullopt;
  const HeaderTerms::Privacy privacy{.clip = double_of_hex(json->at("clip").as_string()),
                                     .delta = double_of_hex(json->at("delta").as_string()),
                                     .epsilon = double_of_hex(json->at("epsilon").as_string())};
  for (const double value : {privacy.clip, privacy.delta, privacy.epsilon})
    require(value > 0 && std::isfinite(value), fmt::format("a number of privacy is {}, it must be above 0", value));
  return privacy;
}

void check_rate(const HeaderTerms& terms) {
  const OptimizerConfig& rate = terms.rate;
  require(rate.lr > 0 && std::isfinite(terms.alpha_max()), fmt::format("lr is {}, it must be above 0", rate.lr));
  require(std::ranges::find(kSchedules, rate.schedule) != kSchedules.end(),
          fmt::format("the schedule \"{}\" is not known", rate.schedule));
  require(terms.rounds >= 1 && terms.rounds <= UINT32_MAX, fmt::format("{} rounds, expected at least 1", terms.rounds));
  require(rate.warmup_steps >= 0 && rate.warmup_steps <= terms.rounds,
          fmt::format("warmup_rounds is {} of {} rounds", rate.warmup_steps, terms.rounds));
  require(rate.final_ratio >= 0 && rate.final_ratio <= 1,
          fmt::format("final_ratio is {}, it must be 0 to 1", rate.final_ratio));
  require(rate.weight_decay >= 0 && rate.lr * rate.weight_decay <= 0.5,
          fmt::format("weight_decay is {}: a step would shrink weights by more than a half", rate.weight_decay));
}

}  // namespace

std::pair<float, float> HeaderTerms::rate_of(uint32_t round, Rules rules) const {
  const double lr = learning_rate(rate, int64_t{round} + 1, rounds, rules);
  return {static_cast<float>(lr), static_cast<float>(1 - lr * rate.weight_decay)};
}

Json::Object members_of(const HeaderTerms& terms) {
  Json keys = Json::array();
  for (const std::string& key : terms.signers) keys.push_back(key);
  Json privacy;
  if (terms.privacy)
    privacy = Json::object()
                  .set("clip", hex_bits(terms.privacy->clip))
                  .set("delta", hex_bits(terms.privacy->delta))
                  .set("epsilon", hex_bits(terms.privacy->epsilon));
  return {{"aggregate", kAggregates[static_cast<size_t>(terms.aggregate)]},
          {"alpha_max", hex_bits(terms.alpha_max())},
          {"final_ratio", hex_bits(terms.rate.final_ratio)},
          {"lr", hex_bits(terms.rate.lr)},
          {"privacy", privacy},
          {"rounds", terms.rounds},
          {"schedule", terms.rate.schedule},
          {"signers", keys},
          {"trim_percent", terms.trim_percent},
          {"warmup_rounds", terms.rate.warmup_steps},
          {"weight_decay", hex_bits(terms.rate.weight_decay)}};
}

HeaderTerms terms_of(const Json& header) {
  HeaderTerms terms;
  const std::string& aggregate = header.at("aggregate").as_string();
  const auto found = std::ranges::find(kAggregates, aggregate);
  require(found != kAggregates.end(), fmt::format("the aggregate \"{}\" is not known", aggregate));
  terms.aggregate = static_cast<Aggregate>(found - kAggregates.begin());
  terms.trim_percent = header.at("trim_percent").as_integer();
  require(terms.trim_percent >= 0 && terms.trim_percent <= 49,
          fmt::format("trim_percent is {}, it must be 0 to 49", terms.trim_percent));
  terms.rate = {.lr = double_of_hex(header.at("lr").as_string()),
                .weight_decay = double_of_hex(header.at("weight_decay").as_string()),
                .schedule = header.at("schedule").as_string(),
                .warmup_steps = header.at("warmup_rounds").as_integer(),
                .final_ratio = double_of_hex(header.at("final_ratio").as_string())};
  terms.rounds = header.at("rounds").as_integer();
  check_rate(terms);
  require(double_of_hex(header.at("alpha_max").as_string()) == terms.alpha_max(), "alpha_max is not lr times 2^20");
  terms.privacy = privacy_of(header.find("privacy"));
  terms.signers = signers_of(header.at("signers"));
  return terms;
}

}  // namespace tessera
