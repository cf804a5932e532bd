#include "infer/schedule.h"

#include <algorithm>
#include <tuple>

#include "core/error.h"

namespace tessera {

Schedule::Schedule(const PrefixTree& tree, std::vector<int32_t> order, std::vector<Demand> demands,
                   const ScheduleLimits& limits)
    : tree_(tree),
      demands_(std::move(demands)),
      limits_(limits),
      pool_(limits.bundles, limits.pages_per_bundle),
      nodes_(tree.nodes.size()),
      requests_(demands_.size()),
      pending_(order.begin(), order.end()),
      adapters_(limits.adapters) {
  TS_CHECK(limits.step_tokens > 0 && 0 < limits.sequences && limits.sequences <= limits.step_tokens,
           "{} sequences in passes of {} tokens", limits.sequences, limits.step_tokens);
  for (size_t v = 0; v < nodes_.size(); ++v) {
    const PrefixTree::Node& n = tree.nodes[v];
    nodes_[v].computed = nodes_[v].farthest = n.begin;
    nodes_[v].remaining = n.leaves;
    for (int32_t t = n.terminal_begin; t < n.terminal_end; ++t)
      requests_[static_cast<size_t>(tree.terminals[static_cast<size_t>(t)])].node = static_cast<int32_t>(v);
  }
  for (const int32_t r : pending_) {
    RequestState& request = requests_[static_cast<size_t>(r)];
    const Demand& demand = demand_of(r);
    TS_CHECK(0 < demand.width && demand.width <= limits.sequences, "request {} has {} beams, and {} go together", r,
             demand.width, limits.sequences);
    const int64_t alone = bundles_alone(tree, request.node, demand, limits.page_tokens);
    TS_CHECK(alone <= limits.bundles, "request {} alone takes {} bundles of pages, of {}", r, alone, limits.bundles);
    request.first_sequence = static_cast<int32_t>(sequences_.size());
    request.left = demand.samples;
    for (int32_t j = 0; j < demand.samples; ++j, tails_ += demand.width)
      sequences_.push_back({.request = r, .first_tail = static_cast<int32_t>(tails_)});
  }
}

int32_t Schedule::begin_of(int32_t sequence) const { return node(node_of(request_of(sequence))).end; }

bool Schedule::is_complete(int32_t request) const {
  for (int32_t v = node_of(request); v > 0; v = node(v).parent)
    if (nodes_[static_cast<size_t>(v)].computed < node(v).end) return false;
  return true;
}

bool Schedule::is_awaited(int32_t v) const {
  const PrefixTree::Node& n = node(v);
  for (int32_t t = n.terminal_begin; t < n.terminal_end; ++t) {
    const auto r = static_cast<size_t>(tree_.terminals[static_cast<size_t>(t)]);
    if (!requests_[r].is_ended && requests_[r].started < demands_[r].samples) return true;
  }
  return false;
}

// ---- pages

void Schedule::clear_node(int32_t v) {
  NodeState& state = state_of(v);
  pool_.release(state.table);
  state.computed = node(v).begin;
  held_.erase(v);
}

/// Drops a node that requests wait for which are not admitted; leaves first.
bool Schedule::drop_held_node() {
  if (held_.empty()) return false;
  clear_node(*held_.rbegin());  // preorder from its end: what lies below goes before it
  return true;
}

void Schedule::preempt(int32_t s) {
  Sequence& sequence = sequences_[static_cast<size_t>(s)];
  sequence.tails.release(pool_);
  sequence.fed = 0;
  leave_live(s);
  sequence.state = State::preempted;
  const auto older = [&](int32_t a, int32_t b) {
    return sequences_[static_cast<size_t>(a)].age < sequences_[static_cast<size_t>(b)].age;
  };
  preempted_.insert(std::lower_bound(preempted_.begin(), preempted_.end(), s, older), s);
  ++counts_.preemptions;
}

/// Takes the prompt of the request that was admitted last and has no sequence under way; not that of `keep`.
bool Schedule::give_back_last_admitted(int32_t keep) {
  for (auto r = admitted_.rbegin(); r != admitted_.rend(); ++r) {
    const RequestState& request = requests_[static_cast<size_t>(*r)];
    const int32_t ended = demand_of(*r).samples - request.left;
    if (*r == keep || request.started > ended) continue;
    leave_path(*r);
    pending_.push_front(*r);
    adapters_.end(*r);
    admitted_.erase(std::next(r).base());
    ++counts_.preemptions;
    return true;
  }
  return false;
}

/// The request does without its prompt: nodes that nobody else uses are cleared.
void Schedule::leave_path(int32_t r) {
  RequestState& request = requests_[static_cast<size_t>(r)];
  for (const int32_t v : tree_.path_to(request.node)) {
    NodeState& state = state_of(v);
    if (--state.users > 0) continue;
    promised_ -= bundles_of(node(v)) - std::ssize(state.table);
    clear_node(v);
  }
  request.is_admitted = false;
}

bool Schedule::has_live(int32_t r) const {
  return std::any_of(live_.begin(), live_.end(), [&](int32_t s) { return request_of(s) == r; });
}

/// Whether one more of the request's sequences can be continued with those that are.
bool Schedule::has_place(int32_t r) const { return live_tails_ + demand_of(r).width <= limits_.sequences; }

void Schedule::enter_live(int32_t s) {
  Sequence& sequence = sequences_[static_cast<size_t>(s)];
  sequence.state = State::live;
  live_tails_ += demand_of(sequence.request).width;
  const auto younger = [&](int32_t other) { return sequences_[static_cast<size_t>(other)].age > sequence.age; };
  live_.insert(std::find_if(live_.begin(), live_.end(), younger), s);
}

void Schedule::leave_live(int32_t s) {
  if (std::erase(live_, s) > 0) live_tails_ -= demand_of(request_of(s)).width;
}

/// Takes the prompt of a request all of whose sequences have given up their tails, the youngest first; not that of
/// `keep`.
bool Schedule::give_back_preempted(int32_t keep) {
  for (auto s = preempted_.rbegin(); s != preempted_.rend(); ++s) {
    const int32_t r = request_of(*s);
    if (r == keep || !requests_[static_cast<size_t>(r)].is_admitted || has_live(r)) continue;
    std::erase(admitted_, r);  // samples that have not begun wait with it
    leave_path(r);
    return true;
  }
  return false;
}

/// Frees pages for a sequence. @return whether some were freed
bool Schedule::make_room(int32_t s) {
  if (drop_held_node()) return true;
  if (!live_.empty() && sequences_[static_cast<size_t>(live_.back())].age > sequences_[static_cast<size_t>(s)].age) {
    preempt(live_.back());
    return true;
  }
  return give_back_last_admitted(request_of(s)) || give_back_preempted(request_of(s));
}

// ---- admission

bool Schedule::may_admit(int32_t r) const {
  if (live_.empty() && admitted_.empty() && preempted_.empty()) return true;
  if (!preempted_.empty() || !adapters_.has_room_for(demands_[static_cast<size_t>(r)].adapter)) return false;
  int64_t need = 0;
  for (const int32_t v : tree_.path_to(node_of(r))) {
    const NodeState& state = nodes_[static_cast<size_t>(v)];
    if (state.users == 0) need += bundles_of(node(v)) - std::ssize(state.table);
  }
  const auto growth = [&](int32_t request, int64_t has) {
    const Demand& demand = demand_of(request);
    return static_cast<double>(demand.width * bundles_of(demand.tail_tokens()) - has) * limits_.reserve;
  };
  double reserve = growth(r, 0) * demand_of(r).samples;
  for (const int32_t s : live_) reserve += growth(request_of(s), tails_of(s).bundles());
  for (const int32_t other : admitted_)
    reserve += growth(other, 0) * (demand_of(other).samples - requests_[static_cast<size_t>(other)].started);
  const auto used = static_cast<double>(pool_.bundles() - pool_.free_bundles() + promised_ + need);
  return used + reserve <= limits_.high_water * static_cast<double>(pool_.bundles());
}

void Schedule::hold_path(int32_t r) {
  requests_[static_cast<size_t>(r)].is_admitted = true;
  for (const int32_t v : tree_.path_to(node_of(r))) {
    NodeState& state = state_of(v);
    if (state.users++ > 0) continue;
    promised_ += bundles_of(node(v)) - std::ssize(state.table);
    held_.erase(v);
  }
}

void Schedule::admit(int32_t r) {
  hold_path(r);
  admitted_.push_back(r);
  adapters_.begin(r, demands_[static_cast<size_t>(r)].adapter);
}

void Schedule::end_request(int32_t r) {
  RequestState& request = requests_[static_cast<size_t>(r)];
  if (request.is_ended) return;
  request.is_ended = true;
  adapters_.end(r);
  const auto path = tree_.path_to(request.node);
  for (auto v = path.rbegin(); v != path.rend(); ++v) {
    NodeState& state = state_of(*v);
    if (request.is_admitted && --state.users == 0) {
      promised_ -= bundles_of(node(*v)) - std::ssize(state.table);
      if (!state.table.empty()) held_.insert(*v);
    }
    if (--state.remaining == 0) clear_node(*v);
  }
  std::erase(admitted_, r);
  if (!request.is_admitted) std::erase(pending_, r);
}

// ---- a pass

/// Adds rows of a node for a request, as many as there is room for. @return whether it is complete then
bool Schedule::feed_node(int32_t v, int32_t request, ScheduledStep& step) {
  const PrefixTree::Node& n = node(v);
  NodeState& state = state_of(v);
  if (state.computed == n.end) return true;
  int64_t count = std::min<int64_t>(n.end - state.computed, room_);
  const auto has = std::ssize(state.table);
  while (count > 0 && !pool_.grow(state.table, bundles_of(state.computed + count - n.begin))) {
    if (drop_held_node()) continue;
    // What pages there are, are used; sequences that live will free others.
    count = std::ssize(state.table) * limits_.page_tokens - (state.computed - n.begin);
    if (count > 0 || !live_.empty() || !step.empty()) break;
    count = std::min<int64_t>(n.end - state.computed, room_);
    if (!give_back_last_admitted(request) && !give_back_preempted(request)) break;
  }
  promised_ -= std::ssize(state.table) - has;
  if (count <= 0) return false;
  const auto end = static_cast<int32_t>(state.computed + count);
  step.work.push_back({v, -1, state.computed, end});
  const int32_t again = std::max(0, std::min(end, state.farthest) - state.computed);
  counts_.recomputed += again;
  counts_.computed += count - again;
  state.computed = end;
  state.farthest = std::max(state.farthest, end);
  room_ -= count;
  return end == n.end;
}

/// Adds what the sequence's tails have not seen yet, as much of each. @return whether there are pages enough
bool Schedule::feed_sequence(int32_t s, ScheduledStep& step) {
  Sequence& sequence = sequences_[static_cast<size_t>(s)];
  Tails& tails = sequence.tails;
  const auto count = static_cast<int32_t>(std::min(int64_t{sequence.length - sequence.fed}, room_ / tails.count()));
  if (count == 0) return true;
  const int32_t fed = sequence.fed, end = fed + count, begin = begin_of(s);
  if (tails.bundles_to_feed(pool_, fed, end, limits_.page_tokens) > pool_.free_bundles()) return false;
  tails.feed(pool_, fed, end, limits_.page_tokens, step.copies);
  for (int32_t tail = 0; tail < tails.count(); ++tail) step.work.push_back({-1, s, begin + fed, begin + end, tail});
  counts_.recomputed += tails.count() * std::max(0, std::min(end, sequence.farthest) - fed);
  sequence.fed = end;
  sequence.farthest = std::max(sequence.farthest, end);
  room_ -= tails.count() * count;
  return true;
}

void Schedule::feed_sequences(ScheduledStep& step) {
  // The oldest first: for its pages those behind it give way, which this pass has not fed yet.
  for (size_t i = 0; i < live_.size() && room_ > 0;) {
    const int32_t s = live_[i];
    if (feed_sequence(s, step)) {
      ++i;
    } else if (!make_room(s)) {
      TS_CHECK(i > 0, "a single sequence does not fit into {} bundles of pages", pool_.bundles());
      preempt(s);
    }
  }
}

void Schedule::resume(ScheduledStep& step) {
  while (!preempted_.empty() && room_ > 0 && has_place(request_of(preempted_.front()))) {
    const int32_t s = preempted_.front(), r = request_of(s);
    Sequence& sequence = sequences_[static_cast<size_t>(s)];
    // A prompt that was given up comes first.
    if (!requests_[static_cast<size_t>(r)].is_admitted) {
      hold_path(r);
      if (requests_[static_cast<size_t>(r)].started < demand_of(r).samples) admitted_.insert(admitted_.begin(), r);
    }
    for (const int32_t v : tree_.path_to(node_of(r)))
      if (!feed_node(v, r, step)) return;
    const int64_t tails = sequence.tails.count();
    if (room_ < tails) return;
    const int64_t bundles = tails * bundles_of(sequence.length);
    // One more for each tail than it needs now, or it would soon be back here.
    while (live_.empty() && pool_.free_bundles() < bundles && make_room(s)) {
    }
    if (pool_.free_bundles() < bundles + (live_.empty() ? 0 : tails)) return;
    preempted_.erase(preempted_.begin());
    enter_live(s);
    TS_CHECK(feed_sequence(s, step), "sequence {} finds {} bundles of pages gone", s, bundles);
  }
}

void Schedule::start_samples(int32_t r, ScheduledStep& step) {
  RequestState& request = requests_[static_cast<size_t>(r)];
  while (request.started < demand_of(r).samples) {
    // Nor do narrower ones go before it, or it might wait for long.
    may_start_ = may_start_ && has_place(r);
    if (!may_start_) return;
    const int32_t s = request.first_sequence + request.started++;
    sequences_[static_cast<size_t>(s)].age = next_age_++;
    enter_live(s);
    step.starts.push_back(s);
  }
}

/// @return whether nothing of the prompt is left to do
bool Schedule::feed_prompt(int32_t r, ScheduledStep& step) {
  for (const int32_t v : tree_.path_to(node_of(r)))
    if (!feed_node(v, r, step)) return false;
  start_samples(r, step);
  return requests_[static_cast<size_t>(r)].started == demand_of(r).samples;
}

void Schedule::feed_prompts(ScheduledStep& step) {
  for (size_t i = 0;;) {
    // Behind as many that wait for others to end nobody is looked at: they would wait, too.
    if (!may_start_ && static_cast<int64_t>(i) >= limits_.sequences) return;
    if (i == admitted_.size()) {
      if (room_ == 0 || pending_.empty() || !may_admit(pending_.front())) return;
      const int32_t r = pending_.front();
      pending_.pop_front();
      admit(r);
    }
    const int32_t r = admitted_[i];
    if (!feed_prompt(r, step)) {
      // Samples that wait for others to end hold nobody up; a prompt that finds no rows or pages does.
      if (!is_complete(r)) return;
      ++i;
      continue;
    }
    admitted_.erase(admitted_.begin() + static_cast<ptrdiff_t>(i));
    if (demand_of(r).samples == 0) only_prompts_.push_back(r);
  }
}

ScheduledStep Schedule::next() {
  for (const int32_t r : only_prompts_) end_request(r);
  only_prompts_.clear();
  ScheduledStep step;
  room_ = limits_.step_tokens;
  may_start_ = true;
  feed_sequences(step);
  resume(step);
  feed_prompts(step);
  step.prompts = only_prompts_;
  const auto place = [&](const Work& w) {
    const int32_t v = w.node >= 0 ? w.node : node_of(request_of(w.sequence));
    return std::tuple(v, w.node < 0, w.sequence, w.tail);
  };
  std::sort(step.work.begin(), step.work.end(), [&](const Work& a, const Work& b) { return place(a) < place(b); });
  TS_CHECK(!step.empty() || (pending_.empty() && admitted_.empty() && live_.empty() && preempted_.empty()),
           "nothing of a batch can go on: {} requests wait", pending_.size() + admitted_.size());
  if (!step.empty()) ++counts_.steps;
  counts_.rows += limits_.step_tokens - room_;
  return step;
}

void Schedule::append(int32_t s) {
  Sequence& sequence = sequences_[static_cast<size_t>(s)];
  TS_CHECK(sequence.state == State::live && sequence.fed == sequence.length, "sequence {} has {} of {} tokens fed", s,
           sequence.fed, sequence.length);
  ++sequence.length;
}

void Schedule::branch(int32_t s, std::span<const int32_t> parents) {
  TS_CHECK(std::ssize(parents) <= demand_of(request_of(s)).width, "sequence {} has {} tails", s, parents.size());
  append(s);
  sequences_[static_cast<size_t>(s)].tails.branch(pool_, parents);
}

void Schedule::finish(int32_t s) {
  Sequence& sequence = sequences_[static_cast<size_t>(s)];
  if (sequence.state == State::ended) return;
  sequence.tails.release(pool_);
  leave_live(s);
  std::erase(preempted_, s);
  sequence.state = State::ended;
  if (--requests_[static_cast<size_t>(sequence.request)].left == 0) end_request(sequence.request);
}

void Schedule::cancel(int32_t r) {
  RequestState& request = requests_[static_cast<size_t>(r)];
  const int32_t samples = demand_of(r).samples;
  request.started = samples;
  for (int32_t j = 0; j < samples; ++j) finish(request.first_sequence + j);
  end_request(r);
  std::erase(only_prompts_, r);
}

}  // namespace tessera
