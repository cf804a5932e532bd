#pragma once
// The first few of many, without sorting the others.

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace tessera {

/// Keeps the first `count` of the items that are offered, in the order that `before` defines. With a total order the
/// result does not depend on the order of the offers. An item that comes too late costs one comparison.
template <class Item, class Before> class Shortlist {
 public:
  explicit Shortlist(size_t count, Before before = {}) : count_(count), before_(before) {}

  void offer(const Item& item) {
    // A heap whose front is the last of those that are kept.
    if (heap_.size() < count_) {
      heap_.push_back(item);
      std::push_heap(heap_.begin(), heap_.end(), before_);
    } else if (count_ > 0 && before_(item, heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), before_);
      heap_.back() = item;
      std::push_heap(heap_.begin(), heap_.end(), before_);
    }
  }

  /// Of those that are kept, the one that comes last.
  const Item& last() const { return heap_.front(); }

  /// What was kept, in order; the list is empty then.
  std::vector<Item> take() {
    std::sort_heap(heap_.begin(), heap_.end(), before_);
    return std::move(heap_);
  }

 private:
  size_t count_;
  Before before_;
  std::vector<Item> heap_;
};

}  // namespace tessera
