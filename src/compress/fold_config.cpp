#include "compress/fold_config.h"

#include <algorithm>
#include <set>

#include "compress/stages.h"
#include "core/error.h"
#include "core/recipe.h"
#include "core/section_check.h"

namespace tessera {

// A training that goes on compares none of these keys, which it does not read: the journal of the stages compares them
// itself (compress/journal.h).
void FoldConfig::visit(Fields& fields) {
  const auto v = [&](const char* key, auto& member, const Rule& rule, const char* help) {
    fields(key, member, rule, help, OnResume::free);
  };
  const Rule share = in_range(0, 0.9);
  v("remove", remove, share, "share of the blocks that is removed; their number is rounded to the nearest");
  v("selector", selector, one_of({"gates", "bi", "random", "run"}),
    "what is removed: by trained gates; least block influence; a draw; the run of blocks whose ends are most alike");
  v("replace", replace, one_of({"none", "mse", "end", "both"}),
    "with selector = \"run\": one block trained in place of the run, on its output, on the loss, or on both in turn");
  v("replace_steps", replace_steps, at_least(1), "optimizer steps of the block in place of the run");
  v("replace_lr", replace_lr, in_f32(above(0)), "its highest learning rate");
  v("target", target, above(0, 1), "stored parameters over the original's; decides the number of groups");
  v("gates", gates, one_of({"block", "sublayer"}), "a gate for each block, or one each for its attention and its MLP");
  v("absorb", absorb, anything(), "sublayer gates that end between 0 and 1 are multiplied into the weights and stay");
  v("gate_estimator", gate_estimator, one_of({"backprop", "spsa"}),
    "how the gates' gradients are found: a backward pass, or the losses of eight probes a step");
  v("gate_steps", gate_steps, at_least(1), "steps of gate training");
  v("gate_batch", gate_batch, in_range(1, 1 << 16),
    "rows of one of these steps, over all ranks; with spsa of one probe");
  v("gate_lr", gate_lr, in_f32(above(0)), "learning rate of the gates, by Adam with betas 0.9 and 0.999");
  v("gate_remove", gate_remove, share,
    "the share that gates are trained for, at least fold.remove, which is its default; smaller shares are taken in "
    "the order in which gates fell");
  v("gate_eps_end", gate_eps_end, above(0, 1),
    "end of the gates' smoothing, which begins at 1: smaller polarises more");
  v("gate_weight", gate_weight, in_f32(above(0)), "weight of the constraint on the kept cost, in nats a unit of cost");
  v("gate_loss", gate_loss, one_of({"ce", "kl"}),
    "what gates lower beside the constraint: cross-entropy, or the divergence from the ungated model");
  v("protect_head", protect_head, at_least(0), "first blocks that are never removed");
  v("protect_tail", protect_tail, at_least(0), "last blocks that are never removed");
  v("planning", planning, one_of({"cost", "fixed"}),
    "groups by the least summed distance to their parents, or in runs of fold.group from the first block on");
  v("group", group, in_range(1, 16), "most blocks of a group that shares its weights");
  v("groups", groups, at_least(1),
    "number of groups of the blocks that are not kept single; default: as few as can be");
  v("keep_head", keep_head, at_least(0), "first of the retained blocks that share nothing");
  v("keep_tail", keep_tail, at_least(0), "last of the retained blocks that share nothing");
  v("parent", parent, one_of({"medoid", "first", "mean", "wmean"}),
    "whose weights a group stores: its most central block's, its first's, their mean, or that weighted by inputs");
  v("child", child, one_of({"norm", "tie", "scale", "lora", "mos"}),
    "what a block of a group has of its own: its norms, nothing, gains too, a LoRA too, or a MoS too");
  v("child_rank", child_rank, in_range(1, 1024), "rank of a child's lora, equivalent rank of its mos");
  v("calibration_rows", calibration_rows, at_least(1),
    "rows of data.train, of train.sequence_length, that blocks are compared on");
  v("cure", cure, one_of({"adapter", "full", "none"}),
    "how the model is trained at last: an adapter, all weights, not");
  v("kl_weight", kl_weight, in_f32(at_least(0)), "of the divergence from the original model in the cure's loss");
  v("temperature", temperature, in_range(0.01, 100), "of both distributions in that divergence");
  v("tail_weight", tail_weight, in_f32(at_least(0)), "of the distance of the last layers' outputs in the cure's loss");
  v("tail_layers", tail_layers, at_least(1), "last layers whose outputs are compared");
  v("plan", plan, anything(), "a fold plan of yours, in place of the stages that would make one");
  v("reuse", reuse, path_as_typed(), "a run whose finished stages are taken over where they read the same");
  std::vector<std::string> names{""};
  for (const Stage& stage : stages()) names.emplace_back(stage.name);
  v("until", until, one_of(names), "the last stage to run; empty: all");
  v("report_tokens", report_tokens, at_least(0), "scored tokens of the report's perplexities; 0: all of data.eval");
}

namespace {

/// What a plan says, or leaves no place for.
constexpr const char* kOfPlan[] = {"remove", "group", "selector", "target"};
constexpr const char* kBesideNoPlan[] = {"gate_remove", "replace", "absorb"};

void check_replace(const FoldConfig& fold, SectionCheck& own) {
  if (fold.replace == "none") return;
  const std::string what = fmt::format("fold.replace is \"{}\", and a replaced block stands for one consecutive run",
                                       fold.replace),
                    or_none = ", or fold.replace = \"none\"";
  if (!fold.plan.empty())
    own.fault("replace", what + ": fold.plan names none", "leave fold.plan out" + or_none);
  else if (fold.selector != "run")
    own.fault("replace", fmt::format("{}: fold.selector is \"{}\"", what, fold.selector),
              "set fold.selector = \"run\"" + or_none);
  else if (fold.has_sublayer_gates())
    own.fault("replace", what + " of whole blocks: fold.gates is \"sublayer\"", "set fold.gates = \"block\"" + or_none);
}

void check_gates(const FoldConfig& fold, SectionCheck& own) {
  if (fold.trained_remove() < fold.remove)
    own.fault("gate_remove",
              fmt::format("fold.gate_remove is {}, less than fold.remove = {}", fold.trained_remove(), fold.remove),
              "gates are trained for the largest share that is removed: raise it, or leave it out");
  if (!fold.absorb) return;
  if (!fold.has_sublayer_gates())
    own.fault("absorb", "fold.absorb is true, and fold.gates is \"block\": the MLP sees the ungated attention output",
              "set fold.gates = \"sublayer\", whose gates can be multiplied into the weights");
  if (fold.selector != "gates" || !fold.plan.empty())
    own.fault("absorb", "fold.absorb is true, and no gates are trained whose values could stay",
              "set fold.selector = \"gates\" without fold.plan, or fold.absorb = false");
  if (fold.trained_remove() != fold.remove)
    own.fault(
        "absorb",
        fmt::format("fold.absorb is true, and gates are trained for fold.gate_remove = {}, where fold.remove is {}: "
                    "what is to stay may be as good as shut",
                    fold.trained_remove(), fold.remove),
        "leave fold.gate_remove out, or fold.absorb");
}

void check_plan(const FoldConfig& fold, SectionCheck& own) {
  if (fold.plan.empty()) return;
  for (const char* key : kOfPlan)
    if (own.said().count(key) > 0)
      own.fault(key, fmt::format("fold.{} is given beside fold.plan", key), "the plan says it: give one of them");
}

void set_to(const FieldTarget& value, const FieldTarget& target) {
  std::visit([&](auto* to) { *to = **std::get_if<decltype(to)>(&value); }, target);
}

std::string let_plan_stand_above(const Recipe& recipe, FoldConfig& fold) {
  const auto is_typed = [&](const std::string& key) { return recipe.where("fold", key).starts_with("command line"); };
  if (fold.plan.empty() || !is_typed("plan")) return "";
  FoldConfig unset;
  Fields given, defaults;
  fold.visit(given);
  unset.visit(defaults);
  const std::set<std::string> said = recipe.said("fold");
  const auto is_one_of = [](const std::string& key, const auto& keys) {
    return std::ranges::find(keys, key) != std::end(keys);
  };
  std::string names;
  for (size_t i = 0; i < given.list.size(); ++i) {
    const std::string& key = given.list[i].key;
    if (!said.count(key) || is_typed(key) || !(is_one_of(key, kOfPlan) || is_one_of(key, kBesideNoPlan))) continue;
    set_to(defaults.list[i].target, given.list[i].target);
    names += (names.empty() ? "fold." : ", fold.") + key;
  }
  return names.empty() ? "" : fmt::format("fold.plan takes the place of {}, which the recipe gives", names);
}

}  // namespace

std::string read_fold(Recipe& recipe, FoldConfig& fold) {
  recipe.read("fold", fold);
  std::string line = let_plan_stand_above(recipe, fold);
  SectionCheck own(recipe, "fold");
  check_gates(fold, own);
  check_replace(fold, own);
  check_plan(fold, own);
  return line;
}

}  // namespace tessera
