#include "infer/rank_reports.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <thread>
#include <type_traits>

#include "core/error.h"

namespace tessera {
namespace {

enum Tag : int { kReport, kText, kOrder };

constexpr int64_t kMostText = int64_t{64} << 20;  // of one report; more follows with the next

template <class Value> std::span<std::byte> bytes_of(Value& value) {
  static_assert(std::is_trivially_copyable_v<Value>, "ranks run the same program: its bytes are what is sent");
  return std::as_writable_bytes(std::span(&value, 1));
}
std::span<std::byte> bytes_of(std::string& text) { return std::as_writable_bytes(std::span(text)); }

void nap() { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

/// Lines behind each other as "17 {..}\n", the first ones as far as there is room.
std::string packed(NumberedLines& lines) {
  std::string text;
  auto at = lines.begin();
  for (; at != lines.end() && std::ssize(text) < kMostText; ++at) text += fmt::format("{} {}\n", at->first, at->second);
  lines.erase(lines.begin(), at);
  return text;
}

NumberedLines unpacked(std::string_view text) {
  NumberedLines lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t space = text.find(' ', begin), end = text.find('\n', begin);
    int64_t number = -1;
    std::from_chars(text.data() + begin, text.data() + space, number);
    lines.emplace_back(number, text.substr(space + 1, end - space - 1));
    begin = end + 1;
  }
  return lines;
}

}  // namespace

EngineCounts& operator+=(EngineCounts& sum, const EngineCounts& other) {
  sum.finished += other.finished;
  sum.failed += other.failed;
  sum.generated += other.generated;
  sum.scored += other.scored;
  sum.schedule.steps += other.schedule.steps;
  sum.schedule.rows += other.schedule.rows;
  sum.schedule.computed += other.schedule.computed;
  sum.schedule.recomputed += other.schedule.recomputed;
  sum.schedule.preemptions += other.schedule.preemptions;
  sum.pages_in_use += other.pages_in_use;
  sum.pages_peak += other.pages_peak;
  sum.pages_total += other.pages_total;
  sum.kv_bytes_read += other.kv_bytes_read;
  sum.planning_seconds += other.planning_seconds;
  if (sum.crossover[0].rows == 0) sum.crossover = other.crossover;  // the first rank's that has measured it
  return sum;
}

RankReports::RankReports(Communicator& world, std::function<void(const NumberedLines&)> take)
    : world_(world), take_(std::move(take)) {
  if (world.rank() != 0) {
    order_posted_ = world.post_receive(bytes_of(order_), 0, kOrder);
    return;
  }
  others_.resize(static_cast<size_t>(world.size() - 1));
  for (size_t i = 0; i < others_.size(); ++i)
    others_[i].posted = world.post_receive(bytes_of(others_[i].report), static_cast<int>(i) + 1, kReport);
}

EngineCounts RankReports::counts() const {
  EngineCounts sum = mine_;
  for (const Other& other : others_) sum += other.counts;
  return sum;
}

bool RankReports::tell(const EngineCounts& mine, NumberedLines lines, bool asked) {
  mine_ = mine;
  is_asked_ |= asked;
  if (world_.rank() == 0) {
    receive();
    if (is_asked_) give(stop);
    return is_asked_;
  }
  std::move(lines.begin(), lines.end(), std::back_inserter(pending_));
  world_.progress();
  if (is_sent()) send(Kind::going, mine, asked);
  return asked || (world_.is_done(order_posted_) && order_ == stop);
}

bool RankReports::end(const EngineCounts& mine, bool is_done, const std::function<bool()>& asked,
                      const std::function<void()>& look) {
  mine_ = mine;
  if (world_.rank() == 0) {
    while (!all_others(&Other::has_left)) {
      receive();
      is_asked_ |= !is_done || asked();
      if (is_done && all_others(&Other::is_done))
        give(all_done);
      else if (is_asked_)
        give(stop);
      if (look) look();
      nap();
    }
    for (const Other& other : others_) world_.wait(other.order);
    if (others_.empty()) order_ = is_done ? all_done : stop;
    return order_ == all_done;
  }
  is_asked_ |= !is_done;
  send_rest(is_done ? Kind::done : Kind::going, mine, is_asked_);
  while (!world_.is_done(order_posted_)) {
    if (!is_asked_ && asked()) {
      is_asked_ = true;
      send_rest(is_done ? Kind::done : Kind::going, mine, true);
    }
    nap();
    world_.progress();
  }
  send_rest(Kind::leaving, mine, is_asked_);
  while (!is_sent()) nap(), world_.progress();
  return order_ == all_done;
}

void RankReports::receive() {
  world_.progress();
  for (size_t i = 0; i < others_.size(); ++i) receive_from(others_[i], static_cast<int>(i) + 1);
}

/// All that has arrived.
void RankReports::receive_from(Other& other, int rank) {
  while (!other.has_left && world_.is_done(other.posted)) {
    if (!other.reads_text && other.report.bytes > 0) {
      other.reads_text = true;
      other.text.resize(static_cast<size_t>(other.report.bytes));
      other.posted = world_.post_receive(bytes_of(other.text), rank, kText);
    } else {
      finish_report(other, rank);
    }
    world_.progress();
  }
}

void RankReports::finish_report(Other& other, int rank) {
  if (other.reads_text) take_(unpacked(other.text));
  other.reads_text = false;
  other.counts = other.report.counts;
  other.is_done |= other.report.kind == Kind::done;
  is_asked_ |= other.report.asked != 0;
  other.has_left = other.report.kind == Kind::leaving;
  if (!other.has_left) other.posted = world_.post_receive(bytes_of(other.report), rank, kReport);
}

void RankReports::give(Order order) {
  if (order_ != none) return;
  order_ = order;
  for (size_t i = 0; i < others_.size(); ++i)
    others_[i].order = world_.post_send(bytes_of(order_), static_cast<int>(i) + 1, kOrder);
}

bool RankReports::all_others(bool Other::*is) const {
  return std::all_of(others_.begin(), others_.end(), [is](const Other& other) { return other.*is; });
}

bool RankReports::is_sent() const {
  return std::all_of(under_way_.begin(), under_way_.end(), [&](Posted posted) { return world_.is_done(posted); });
}

/// Nothing else is on its way.
void RankReports::send(Kind kind, const EngineCounts& counts, bool asked) {
  out_text_ = packed(pending_);
  out_ = {pending_.empty() ? kind : Kind::going, asked, std::ssize(out_text_), counts};
  under_way_ = {world_.post_send(bytes_of(out_), 0, kReport)};
  if (!out_text_.empty()) under_way_.push_back(world_.post_send(bytes_of(out_text_), 0, kText));
}

/// With all lines: behind it nothing is left to tell.
void RankReports::send_rest(Kind kind, const EngineCounts& counts, bool asked) {
  do {
    while (!is_sent()) nap(), world_.progress();
    send(kind, counts, asked);
  } while (!pending_.empty());
}

}  // namespace tessera
