#include "infer/least_time.h"

#include <algorithm>
#include <set>

namespace tessera {
namespace {

/// Σ of min(keys, window) over rows that see begin + 1, .., end keys.
double keys_seen(int64_t begin, int64_t end, int64_t window) {
  const auto sum_to = [](int64_t n) { return 0.5 * static_cast<double>(n) * static_cast<double>(n + 1); };
  if (end <= begin) return 0;
  if (window == 0) return sum_to(end) - sum_to(begin);
  const int64_t inside = std::clamp(window, begin, end);
  return sum_to(inside) - sum_to(begin) + static_cast<double>(window * (end - inside));
}

int64_t passes_for(int64_t rows, int64_t step_tokens) { return (rows + step_tokens - 1) / step_tokens; }

}  // namespace

LeastTime::LeastTime(Model& model, int64_t step_tokens) : step_tokens_(step_tokens) {
  const DecoderModel& decoder = model.decoder();
  std::set<const void*> seen;  // layers may share a weight
  for (size_t i = 0; i < decoder.specs().size(); ++i) {
    const WeightSpec& spec = decoder.specs()[i];
    if (spec.role != Role::linear && spec.role != Role::head) continue;
    const bool is_head = spec.role == Role::head;
    (is_head ? head_flop_ : linear_flop_) += 2 * static_cast<double>(spec.shape.count());
    const ConstView stored = decoder.weight(static_cast<int>(i))->direct({&model.pool()});
    if (!stored.empty() && seen.insert(stored.data).second)
      (is_head ? head_bytes_ : linear_bytes_) += static_cast<double>(stored.bytes());
    if (!model.bound_adapter() || is_head) continue;
    for (const LowRank& delta : model.bound_adapter()->weights().by_weight[i])
      linear_flop_ += 2 * static_cast<double>(delta.rank() * (spec.shape[0] + spec.shape[1]));
  }
  for (int layer = 0; layer < decoder.num_layers(); ++layer)
    if (decoder.block_weights(layer).has_attention()) windows_.push_back(model.config().attention_of(layer).window);
  key_flop_ = 4 * static_cast<double>(model.config().query_width());
}

double LeastTime::keys_flop(int64_t begin, int64_t end) const {
  double keys = 0;
  for (const int64_t window : windows_) keys += keys_seen(begin, end, window);
  return key_flop_ * keys;
}

/// The last new token is not fed.
void LeastTime::add_tail(int64_t prompt, int64_t new_tokens) {
  if (new_tokens == 0) return;
  fed_ += new_tokens - 1;
  tails_flop_ += keys_flop(prompt, prompt + new_tokens - 1);
  longest_tail_ = std::max(longest_tail_, new_tokens);
  longest_passes_ = std::max(longest_passes_, passes_for(prompt, step_tokens_) + new_tokens - 1);
}

void LeastTime::add(const Request& request, const RequestResult& result) {
  const int64_t fed = std::ssize(request.prompt) - (request.max_tokens == 0 ? 1 : 0);
  longest_passes_ = std::max(longest_passes_, passes_for(fed, step_tokens_));
  for (const Output& output : result.outputs) add_tail(std::ssize(request.prompt), std::ssize(output.ids));
}

double LeastTime::seconds(const BatchPlan& plan, const EngineCounts& counts, const MachineRates& rates) const {
  if (rates.flop <= 0 || rates.bytes <= 0) return 0;
  const int64_t rows = counts.schedule.computed + fed_;
  double flop = linear_flop_ * static_cast<double>(rows) +
                head_flop_ * static_cast<double>(counts.generated + counts.scored) + tails_flop_;
  for (const PrefixTree::Node& node : plan.tree.nodes) flop += keys_flop(node.begin, node.end);
  const int64_t passes = std::max(longest_passes_, passes_for(rows, step_tokens_));
  const double bytes = linear_bytes_ * static_cast<double>(passes) + head_bytes_ * static_cast<double>(longest_tail_) +
                       static_cast<double>(counts.kv_bytes_read);
  return std::max(flop / rates.flop, bytes / rates.bytes);
}

double LeastTime::expected_seconds(const BatchPlan& plan, const MachineRates& rates) const {
  double new_tokens = 0, longest = 0;
  for (size_t r = 0; r < plan.demands.size(); ++r) {
    new_tokens += plan.expected_new[r];
    longest =
        std::max(longest, plan.expected_new[r] / static_cast<double>(std::max<int64_t>(1, plan.demands[r].tails())));
  }
  const double rows = static_cast<double>(plan.tree.tokens()) + new_tokens;
  const double passes = std::max(longest, rows / static_cast<double>(step_tokens_));
  return std::max((linear_flop_ * rows + head_flop_ * new_tokens) / rates.flop, linear_bytes_ * passes / rates.bytes);
}

}  // namespace tessera
