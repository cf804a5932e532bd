#include "train/spsa/simulate/event_queue.h"

#include <algorithm>
#include <tuple>

#include "core/error.h"

namespace tessera {

bool EventQueue::is_later(const Event& a, const Event& b) {
  return std::tie(a.at, a.node, a.kind, a.number) > std::tie(b.at, b.node, b.kind, b.number);
}

void EventQueue::add(SimTime at, uint32_t node, Kind kind, std::function<void()> what) {
  TS_CHECK(at >= now_, "an event at {} ns, it is {} ns", at, now_);
  heap_.push_back({at, node, kind, added_++, std::move(what)});
  std::push_heap(heap_.begin(), heap_.end(), is_later);
}

bool EventQueue::run_next() {
  if (heap_.empty()) return false;
  std::pop_heap(heap_.begin(), heap_.end(), is_later);
  const Event next = std::move(heap_.back());
  heap_.pop_back();  // before it happens: it may add others
  now_ = next.at;
  next.what();
  return true;
}

}  // namespace tessera
