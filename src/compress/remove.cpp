// Stage "remove": which blocks go, by the recipe's selector. removed.json holds them and the order that they come from.

#include "compress/gate_units.h"
#include "compress/json_numbers.h"
#include "compress/stages.h"

namespace tessera {
namespace {

struct Choice {
  std::vector<int64_t> order;  // of units, the first to be removed in front
  Removal removal;
};

/// The order that gates end in; of a rate below the one that they were trained for, the order in which they fell.
Choice choose_by_gates(const StageInputs& in, const GateUnits& units, std::span<const double> bi) {
  const Json found = file_of_stage(in, "gates");
  const std::vector<double> gate = numbers_of(found.at("gate")), theta = numbers_of(found.at("theta"));
  std::vector<int64_t> falls;
  for (const Json& fall : found.at("fallen").items()) {
    const Json* part = fall.find("part");
    falls.push_back(fall.at("block").as_integer() * units.halves() +
                    (part && part->as_string() == name_of(BlockHalf::mlp) ? 1 : 0));
  }
  const ProtectedBlocks kept = protected_blocks(in.fold);
  const auto removal_of = [&](std::span<const int64_t> order, double rho) {
    return removal_of_units(units, order, rho, kept, in.where_fold);
  };
  auto order = order_by_gates({.gate = gate, .theta = theta, .bi = bi, .falls = falls}, kept);
  if (in.fold.remove < in.fold.trained_remove()) {
    const Removal trained = removal_of(order, in.fold.trained_remove());
    const size_t units_trained = trained.blocks.size() * static_cast<size_t>(units.halves()) + trained.halves.size();
    order = order_by_falls(std::move(order), static_cast<int64_t>(units_trained), falls);
  }
  Removal removal = removal_of(order, in.fold.remove);
  return {std::move(order), std::move(removal)};
}

/// A run is removed without its first block, which stays in its place.
Choice choose_run(const StageInputs& in, int64_t layers, int64_t count, const Json& probe) {
  std::vector<double> similarity;
  for (const Json& row : probe.at("similarity").items())
    for (const double cosine : numbers_of(row)) similarity.push_back(cosine);
  const int64_t first = most_similar_run(similarity, layers, count + 1, protected_blocks(in.fold));
  Choice choice;
  for (int64_t block = first + 1; block <= first + count; ++block) choice.order.push_back(block);
  choice.removal = remove_blocks(choice.order, count);
  return choice;
}

Choice choose(const StageInputs& in, const GateUnits& units) {
  const Json probe = file_of_stage(in, "probe");
  const std::vector<double> bi = numbers_of(probe.at("bi"));
  const std::string& selector = in.fold.selector;
  const ProtectedBlocks kept = protected_blocks(in.fold);
  const int64_t count = blocks_to_remove(in.fold.remove, units.layers, kept, in.where_fold);
  if (in.fold.remove == 0) return {};
  if (selector == "gates") return choose_by_gates(in, units, bi);
  if (count == 0) return {};
  if (selector == "run") return choose_run(in, units.layers, count, probe);
  Choice choice;
  choice.order = selector == "bi" ? order_by_influence(bi, kept)
                                  : random_order(units.layers, count, kept, static_cast<uint64_t>(in.train.seed));
  choice.removal = remove_blocks(choice.order, count);
  return choice;
}

std::string in_words(const Removal& removal) {
  std::string text;
  for (const int64_t block : removal.blocks) text += fmt::format("{}{}", text.empty() ? "block " : ", ", block);
  for (const auto& [block, part] : removal.halves)
    text += fmt::format("{}{} of block {}", text.empty() ? "" : ", ", name_of(part), block);
  return text.empty() ? "nothing" : text;
}

StageOutcome remove_blocks_of_model(const StageInputs& in) {
  const GateUnits units = gate_units(in.fold, in.model.decoder().specs(), in.model.decoder().num_layers());
  const Choice choice = choose(in, units);
  in.say(fmt::format("removed of {} blocks: {}", units.layers, in_words(choice.removal)));
  Json halves(Json::Array{});
  for (const auto& [block, part] : choice.removal.halves)
    halves.push_back(Json::object().set("block", block).set("part", name_of(part)));
  return {.file = Json::object()
                      .set("format", "tessera fold removal")
                      .set("version", 1)
                      .set("selector", in.fold.selector)
                      .set("remove", in.fold.remove)
                      .set("layers", units.layers)
                      .set("removed", array_of(choice.removal.blocks))
                      .set("removed_halves", std::move(halves))
                      .set("order", array_of(choice.order))};
}

StageCost remove_cost(const StageSizes&) { return {}; }

}  // namespace

Stage remove_stage() {
  return {.name = "remove",
          .file = "removed.json",
          .keys = {"fold.remove", "fold.selector", "fold.gates", "fold.gate_remove", "fold.protect_head",
                   "fold.protect_tail", "train.seed"},
          .inputs = {"probe", "gates"},
          .run = remove_blocks_of_model,
          .cost = remove_cost};
}

}  // namespace tessera
