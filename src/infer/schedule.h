#pragma once
// Which tokens the next pass computes. Numbers alone, so that a batch can be played through without a model.

#include <cstdint>
#include <deque>
#include <set>
#include <span>
#include <vector>

#include "infer/adapter_limit.h"
#include "infer/demand.h"
#include "infer/page_pool.h"
#include "infer/prefix_tree.h"
#include "infer/tails.h"

namespace tessera {

struct ScheduleLimits {
  int64_t step_tokens = 256;  // rows of a pass
  int64_t sequences = 256;    // that are continued together, each beam of a search counted; at most step_tokens
  int64_t bundles = 0, pages_per_bundle = 1, page_tokens = 16;
  double high_water = 0.95;      // share of the pages up to which prompts are admitted
  double reserve = 0.5;          // share of what live sequences may still grow by that is kept free when one is
  int64_t adapters = INT64_MAX;  // whose requests are computed together
};

/// Rows of a pass: positions [begin, end) of a node of the tree or of one of a sequence's tails; the other one is -1.
struct Work {
  int32_t node, sequence;
  int32_t begin, end;
  int32_t tail = 0;  // of the sequence
};

struct ScheduledStep {
  std::vector<BundleCopy> copies;  // to be made in front of the pass
  std::vector<Work> work;          // depth-first: a node's rows, those of its sequences, then its children's
  // Sequences whose first token is chosen behind this pass, from the last row of the node that their prompt ends at,
  // which this pass or an earlier one computed.
  std::vector<int32_t> starts;
  std::vector<int32_t> prompts;  // requests without samples whose prompts this pass completes: they end with it
  bool empty() const { return work.empty() && starts.empty(); }
};

/// Continuous batching over a prefix tree. Each pass feeds every live sequence what it has not seen yet and fills the
/// rest of its rows with prompts, node by node, parents first; requests are admitted in the given order as pages allow.
/// A node is computed once and its pages live until the last request at or below it has ended. The tails of a sequence
/// go on together, by as many tokens each, or not at all.
///
/// When pages run out, nodes that only waiting requests need are dropped, then the sequence that began last gives up
/// its tails and computes them again later, then requests without a sequence under way give up their prompts, then
/// those all of whose sequences have given up their tails. The oldest one is never taken from, so that it ends: a batch
/// in which each request alone fits cannot get stuck.
class Schedule {
 public:
  /// @param order    of admission: every request that the tree holds, once
  /// @param demands  by number of request
  /// @throws InternalError when a request alone needs more pages than there are
  Schedule(const PrefixTree&, std::vector<int32_t> order, std::vector<Demand> demands, const ScheduleLimits&);

  /// Empty when nothing is left to do. What it says is counted as computed.
  ScheduledStep next();
  /// The sequence has one more token.
  void append(int32_t sequence);
  /// The same of one that is searched by beams: tail i of now on continues tail parents[i] of before.
  void branch(int32_t sequence, std::span<const int32_t> parents);
  /// The sequence has ended: its pages are free.
  void finish(int32_t sequence);
  /// All sequences of the request end, and those that have not begun never do.
  void cancel(int32_t request);

  /// Sequences of a request are [first_sequence(r), first_sequence(r) + samples).
  int32_t first_sequence(int32_t request) const { return requests_[static_cast<size_t>(request)].first_sequence; }
  int32_t request_of(int32_t sequence) const { return sequences_[static_cast<size_t>(sequence)].request; }
  int32_t node_of(int32_t request) const { return requests_[static_cast<size_t>(request)].node; }
  int64_t sequences() const { return static_cast<int64_t>(sequences_.size()); }
  /// Tails of a sequence are [first_tail(s), first_tail(s) + width) of all that there can be. Where nothing is searched
  /// by beams, a sequence and its tail have the same number.
  int32_t first_tail(int32_t sequence) const { return sequences_[static_cast<size_t>(sequence)].first_tail; }
  int32_t tail_of(const Work& w) const { return first_tail(w.sequence) + w.tail; }
  int64_t tails() const { return tails_; }
  bool is_live(int32_t sequence) const { return sequences_[static_cast<size_t>(sequence)].state == State::live; }
  /// Sequences that are continued; and whether nothing but their continuation is left to do.
  std::span<const int32_t> live() const { return live_; }
  bool only_continues() const { return pending_.empty() && admitted_.empty() && preempted_.empty(); }
  bool is_open(int32_t sequence) const { return sequences_[static_cast<size_t>(sequence)].state != State::ended; }
  /// Whether sequences that have not begun will want the last row of the node.
  bool is_awaited(int32_t node) const;
  /// Tokens of the prompt in front of the sequence's first new one.
  int32_t begin_of(int32_t sequence) const;

  /// Position up to which keys and values of the node are there when the step is done.
  int32_t computed(int32_t node) const { return nodes_[static_cast<size_t>(node)].computed; }
  /// First pages of bundles, as kernels/paged_attention.h reads them.
  std::span<const int32_t> node_table(int32_t node) const { return nodes_[static_cast<size_t>(node)].table; }
  std::span<const int32_t> tail_table(const Work& w) const { return tails_of(w.sequence).table(w.tail); }
  const Tails& tails_of(int32_t sequence) const { return sequences_[static_cast<size_t>(sequence)].tails; }
  const PrefixTree& tree() const { return tree_; }
  const PagePool& pages() const { return pool_; }

  struct Counts {
    int64_t steps = 0, rows = 0;
    int64_t computed = 0;    // tokens of prompts, each once
    int64_t recomputed = 0;  // tokens of prompts and tails, beyond that
    int64_t preemptions = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  enum class State : uint8_t { waiting, live, preempted, ended };
  struct NodeState {
    int32_t computed = 0;   // position up to which its keys and values are in pages
    int32_t farthest = 0;   // as far as they ever were
    int32_t users = 0;      // admitted requests at or below
    int32_t remaining = 0;  // requests at or below that have not ended
    std::vector<int32_t> table;
  };
  struct RequestState {
    int32_t node = 0, first_sequence = 0;
    int32_t started = 0, left = 0;  // samples that began, that have not ended
    bool is_admitted = false, is_ended = false;
  };
  struct Sequence {
    int32_t request = 0, first_tail = 0;
    State state = State::waiting;
    int64_t age = 0;     // when it began first
    int32_t length = 0;  // new tokens, of each of its tails
    int32_t fed = 0;     // of them in pages
    int32_t farthest = 0;
    Tails tails{};
  };

  void feed_sequences(ScheduledStep&);
  void resume(ScheduledStep&);
  void feed_prompts(ScheduledStep&);
  bool feed_prompt(int32_t request, ScheduledStep&);
  void start_samples(int32_t request, ScheduledStep&);
  bool feed_node(int32_t node, int32_t request, ScheduledStep&);
  bool feed_sequence(int32_t sequence, ScheduledStep&);
  bool may_admit(int32_t request) const;
  void admit(int32_t request);
  void end_request(int32_t request);
  bool drop_held_node();
  bool make_room(int32_t sequence);
  void preempt(int32_t sequence);
  bool give_back_last_admitted(int32_t keep);
  bool give_back_preempted(int32_t keep);
  void hold_path(int32_t request);
  void leave_path(int32_t request);
  bool has_live(int32_t request) const;
  bool has_place(int32_t request) const;
  void enter_live(int32_t sequence);
  void leave_live(int32_t sequence);
  void clear_node(int32_t node);
  bool is_complete(int32_t request) const;
  int64_t bundles_of(int64_t tokens) const { return bundles_for(tokens, limits_.page_tokens); }
  int64_t bundles_of(const PrefixTree::Node& n) const { return bundles_of(n.end - n.begin); }
  const Demand& demand_of(int32_t request) const { return demands_[static_cast<size_t>(request)]; }
  NodeState& state_of(int32_t node) { return nodes_[static_cast<size_t>(node)]; }
  const PrefixTree::Node& node(int32_t v) const { return tree_.nodes[static_cast<size_t>(v)]; }

  const PrefixTree& tree_;
  std::vector<Demand> demands_;
  ScheduleLimits limits_;
  PagePool pool_;
  std::vector<NodeState> nodes_;
  std::vector<RequestState> requests_;
  std::vector<Sequence> sequences_;
  std::deque<int32_t> pending_;         // requests that are not admitted
  std::vector<int32_t> admitted_;       // whose prompt is not computed or whose samples have not all begun
  std::vector<int32_t> live_;           // sequences, the oldest first
  int64_t tails_ = 0, live_tails_ = 0;  // that all sequences, and that live ones may have
  std::vector<int32_t> preempted_;      // the oldest first
  std::vector<int32_t> only_prompts_;   // requests without samples that end when the pass is done
  AdapterLimit adapters_;
  std::set<int32_t> held_;  // nodes with pages that only requests wait for which are not admitted
  int64_t promised_ = 0;    // bundles that admitted prompts will still take
  int64_t room_ = 0;        // rows of this pass that are free
  bool may_start_ = true;   // no sequence in front of those that come now waits for its place
  int64_t next_age_ = 0;
  Counts counts_;
};

}  // namespace tessera
