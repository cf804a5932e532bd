#pragma once
// What ranks that answer parts of one batch tell rank 0 while they work: how far they are, answers, a wish to stop.
//
//   rank r  ── going, going, .., done ──►  rank 0     counts, and lines of answers
//   rank r  ◄────── end or stop ─────────  rank 0     when all are done, or when any was asked to stop
//   rank r  ── leaving ─────────────────►  rank 0
//
// Nobody waits for another rank before its own part has ended, and sleeps between two looks then.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "infer/engine.h"

namespace tessera {

/// Sums of counts of several ranks.
EngineCounts& operator+=(EngineCounts&, const EngineCounts&);

/// Lines of answers with their numbers.
using NumberedLines = std::vector<std::pair<int64_t, std::string>>;

/// Every rank makes one, tells it how far it is, and ends it.
class RankReports {
 public:
  /// @param take  on rank 0: called with lines of other ranks
  RankReports(Communicator& world, std::function<void(const NumberedLines&)> take);

  /// Between two passes. Nothing is waited for. The last lines are told by `end` at the latest.
  /// @param asked  whether this rank was asked to stop
  /// @return whether the ranks are to stop: they call `end` then
  bool tell(const EngineCounts& mine, NumberedLines lines, bool asked);

  /// This rank has nothing left to do, or leaves it. Returns when that is so on all of them.
  /// @param is_done  whether its part is whole; else it was asked to stop
  /// @param asked    looked at until all have ended
  /// @param look     called meanwhile, on rank 0
  /// @return whether all parts are whole, the same on every rank
  bool end(const EngineCounts& mine, bool is_done, const std::function<bool()>& asked,
           const std::function<void()>& look = {});

  /// Of all ranks on rank 0, as far as they have told; of this one elsewhere.
  EngineCounts counts() const;

 private:
  enum class Kind : int64_t { going, done, leaving };
  enum Order : int64_t { none, all_done, stop };
  struct Report {
    Kind kind = Kind::going;
    int64_t asked = 0, bytes = 0;
    EngineCounts counts{};
  };
  /// Another rank, as rank 0 knows it.
  struct Other {
    Report report{};  // what is being received
    std::string text{};
    Posted posted{};
    bool reads_text = false;
    EngineCounts counts{};
    bool is_done = false, has_left = false;
    Posted order{};
  };

  // On rank 0.
  void receive();
  void receive_from(Other&, int rank);
  void finish_report(Other&, int rank);
  void give(Order);
  bool all_others(bool Other::*) const;
  // On the others.
  bool is_sent() const;
  void send(Kind, const EngineCounts&, bool asked);
  void send_rest(Kind, const EngineCounts&, bool asked);

  Communicator& world_;
  std::function<void(const NumberedLines&)> take_;
  EngineCounts mine_{};
  std::vector<Other> others_;  // rank r's at r - 1
  bool is_asked_ = false;      // any rank
  Order order_ = none;         // given, or received
  Posted order_posted_{};
  NumberedLines pending_{};  // lines that are not on their way
  Report out_{};
  std::string out_text_{};
  std::vector<Posted> under_way_{};
};

}  // namespace tessera
