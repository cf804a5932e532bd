#include "infer/batch_plan.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "core/stop.h"

namespace tessera {
namespace {

/// Numbers the adapters in the order in which they occur.
void number_adapters(std::span<const Request> requests, const BatchAdapters& adapters, BatchPlan& plan) {
  const std::string base = "base";
  std::map<std::string_view, int32_t> numbers = {{base, 0}};  // by content
  plan.adapters = {base};
  for (const Request& request : requests) {
    const auto found = adapters.contents.find(request.adapter);
    const std::string& content = found == adapters.contents.end() ? request.adapter : found->second;
    const auto [at, is_new] = numbers.try_emplace(content, static_cast<int32_t>(plan.adapters.size()));
    if (is_new) plan.adapters.push_back(request.adapter);
    plan.weights.push_back({at->second, at->second ? static_cast<int32_t>(request.activation_offset) : 0});
  }
}

/// By salt, in the order in which they occur; within one, those of an adapter come together.
std::vector<std::vector<int32_t>> requests_by_key(std::span<const Request> requests, const BatchPlan& plan) {
  std::map<std::string_view, size_t> numbers;
  std::vector<std::vector<int32_t>> keys;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto [at, is_new] = numbers.try_emplace(requests[i].cache_salt, keys.size());
    if (is_new) keys.emplace_back();
    keys[at->second].push_back(static_cast<int32_t>(i));
  }
  const auto adapter = [&](int32_t r) { return plan.weights[static_cast<size_t>(r)].adapter; };
  for (std::vector<int32_t>& key : keys)
    std::stable_sort(key.begin(), key.end(), [&](int32_t a, int32_t b) { return adapter(a) < adapter(b); });
  return keys;
}

/// Adds a tree's nodes below the common root.
void append(PrefixTree& all, const PrefixTree& tree) {
  const auto nodes = static_cast<int32_t>(all.nodes.size()) - 1;
  const auto terminals = static_cast<int32_t>(all.terminals.size());
  for (size_t v = 1; v < tree.nodes.size(); ++v) {
    PrefixTree::Node node = tree.nodes[v];
    if (node.parent > 0) node.parent += nodes;
    node.subtree_end += nodes;
    node.terminal_begin += terminals;
    node.terminal_end += terminals;
    all.nodes.push_back(node);
  }
  all.terminals.insert(all.terminals.end(), tree.terminals.begin(), tree.terminals.end());
  all.nodes[0].leaves += tree.nodes[0].leaves;
  all.nodes[0].subtree_end = static_cast<int32_t>(all.nodes.size());
  all.comparisons += tree.comparisons;
}

Demand demand_of(const Request& request, int32_t adapter, int64_t max_position) {
  if (request.max_tokens == 0) return {.adapter = adapter};
  // The last new token needs no position: it is not fed.
  const int64_t room = max_position - std::ssize(request.prompt) + 1, tokens = std::min(request.max_tokens, room);
  const auto width = static_cast<int32_t>(request.beams.width);
  if (width > 1) return {tokens, 1, width, adapter};
  return {tokens, static_cast<int32_t>(request.best_of), 1, adapter};
}

/// Those of an adapter come where the first of them does.
void bring_together(std::vector<int32_t>& order, const BatchPlan& plan) {
  const auto adapter = [&](int32_t r) { return static_cast<size_t>(plan.weights[static_cast<size_t>(r)].adapter); };
  std::vector<size_t> places(plan.adapters.size(), order.size());
  for (size_t i = 0; i < order.size(); ++i) places[adapter(order[i])] = std::min(places[adapter(order[i])], i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return places[adapter(a)] < places[adapter(b)]; });
}

/// Where a text may end by itself, half of its length is expected.
double expected_new_tokens(const Request& request, const Demand& demand) {
  const double share = request.stop_ids.empty() && request.stop.empty() ? 1 : 0.5;
  return static_cast<double>(demand.new_tokens * demand.tails()) * share;
}

std::vector<int32_t> admission_order(const BatchPlan& plan, const BatchAdapters& adapters) {
  std::vector<int32_t> order;
  for (const int32_t v : groups_by_decoding(plan.tree, plan.expected_new)) {
    const PrefixTree::Node& group = plan.tree.nodes[static_cast<size_t>(v)];
    const auto first = plan.tree.terminals.begin() + group.terminal_begin;
    order.insert(order.end(), first, first + group.leaves);
  }
  if (std::ssize(plan.adapters) - 1 > adapters.most_together) bring_together(order, plan);
  return order;
}

}  // namespace

BatchPlan plan_batch(std::span<const Request> requests, PrefixMode mode, int64_t page_tokens, int64_t max_position,
                     int threads, const BatchAdapters& adapters) {
  BatchPlan plan;
  plan.cached.resize(requests.size());
  number_adapters(requests, adapters, plan);
  for (const Request& request : requests) {
    // Behind the last token of a prompt that is only scored nothing follows.
    const size_t unfed = request.max_tokens == 0 ? 1 : 0;
    plan.fed.push_back(std::span<const int32_t>(request.prompt).first(request.prompt.size() - unfed));
    const int32_t adapter = plan.weights[plan.demands.size()].adapter;
    plan.demands.push_back(demand_of(request, adapter, max_position));
    plan.widest = std::max(plan.widest, plan.demands.back().width);
    plan.expected_new.push_back(expected_new_tokens(request, plan.demands.back()));
  }
  plan.tree.nodes.push_back({.subtree_end = 1});
  for (const std::vector<int32_t>& key : requests_by_key(requests, plan)) {
    const PrefixTree all = shared_tree(plan.fed, key, PrefixMode::tree, threads, plan.weights);
    cached_tokens(all, plan.cached);
    const PrefixTree tree = mode == PrefixMode::tree ? all : shared_tree(plan.fed, key, mode, threads, plan.weights);
    plan.statistics += prefix_statistics(tree);
    append(plan.tree, tree);
  }
  plan.order = admission_order(plan, adapters);
  for (size_t v = 1; v < plan.tree.nodes.size(); ++v) {
    const PrefixTree::Node& node = plan.tree.nodes[v];
    plan.all_bundles += bundles_for(node.end - node.begin, page_tokens);
    for (int32_t t = node.terminal_begin; t < node.terminal_end; ++t) {
      const int32_t r = plan.tree.terminals[static_cast<size_t>(t)];
      const Demand& demand = plan.demands[static_cast<size_t>(r)];
      plan.all_bundles += demand.tails() * bundles_for(demand.tail_tokens(), page_tokens);
      const int64_t alone = bundles_alone(plan.tree, static_cast<int32_t>(v), demand, page_tokens);
      if (alone <= plan.most_bundles) continue;
      plan.most_bundles = alone;
      plan.largest = r;
    }
  }
  return plan;
}

namespace {

/// The most bundles in use from here on, when all that is left is to continue live sequences. Prompts are counted to
/// the end.
int64_t bundles_to_the_end(const Schedule& schedule, const BatchPlan& plan, const std::vector<int64_t>& lengths,
                           const ScheduleLimits& limits) {
  struct Tail {
    int64_t length, left;
  };
  std::vector<Tail> tails;
  int64_t held = schedule.pages().bundles() - schedule.pages().free_bundles();
  for (const int32_t s : schedule.live()) {
    const int64_t length = lengths[static_cast<size_t>(s)], count = schedule.tails_of(s).count();
    const int64_t left = plan.demands[static_cast<size_t>(schedule.request_of(s))].new_tokens - length;
    tails.insert(tails.end(), static_cast<size_t>(count), {length, left});
    held -= schedule.tails_of(s).bundles();
  }
  std::sort(tails.begin(), tails.end(), [](const Tail& a, const Tail& b) { return a.left > b.left; });
  // Bundles grow until a sequence ends: those that are as long as the i-th, or longer, are there when it does.
  int64_t most = 0;
  for (size_t i = 0; i < tails.size(); ++i) {
    if (i + 1 < tails.size() && tails[i + 1].left == tails[i].left) continue;
    int64_t bundles = held;
    for (size_t j = 0; j <= i; ++j) bundles += bundles_for(tails[j].length + tails[i].left - 1, limits.page_tokens);
    most = std::max(most, bundles);
  }
  return std::min(most, limits.bundles);
}

}  // namespace

PlayedBatch play(const BatchPlan& plan, const ScheduleLimits& limits) {
  Schedule schedule(plan.tree, plan.order, plan.demands, limits);
  std::vector<int64_t> lengths(static_cast<size_t>(schedule.sequences()), 0);
  // Beams that share nothing take the most pages.
  const auto branch = [&](int32_t s, int32_t width) {
    std::vector<int32_t> parents(static_cast<size_t>(width), 0);
    if (lengths[static_cast<size_t>(s)] > 1) std::iota(parents.begin(), parents.end(), 0);
    schedule.branch(s, parents);
  };
  const auto extend = [&](int32_t s) {
    const Demand& demand = plan.demands[static_cast<size_t>(schedule.request_of(s))];
    if (++lengths[static_cast<size_t>(s)] == demand.new_tokens)
      schedule.finish(s);
    else if (demand.width > 1)
      branch(s, demand.width);
    else
      schedule.append(s);
  };
  // A batch of so much work is not played to its end: it may use all pages that there are. A step takes as long as some
  // twenty of its rows.
  constexpr int64_t kMostWork = 5'000'000, kStepRows = 20;
  PlayedBatch played;
  for (ScheduledStep step = schedule.next(); !step.empty(); step = schedule.next()) {
    leave_if_asked("planning");
    if (schedule.counts().rows + kStepRows * schedule.counts().steps > kMostWork) {
      played.peak_bundles = limits.bundles;
      break;
    }
    for (const Work& w : step.work)
      if (w.sequence >= 0 && w.tail == 0 &&
          w.end - schedule.begin_of(w.sequence) == lengths[static_cast<size_t>(w.sequence)])
        extend(w.sequence);
    for (const int32_t s : step.starts) extend(s);
    // Continuations may be long, and nothing is decided on the way any more.
    if (schedule.only_continues()) {
      played.peak_bundles = bundles_to_the_end(schedule, plan, lengths, limits);
      break;
    }
  }
  played.peak_bundles = std::max(played.peak_bundles, schedule.pages().peak_pages() / limits.pages_per_bundle);
  return played;
}

}  // namespace tessera
