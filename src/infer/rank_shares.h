#pragma once
// Which rank computes which requests.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/batch_plan.h"
#include "infer/requests/request_file.h"

namespace tessera {

struct RankShares {
  std::vector<std::vector<int32_t>> requests;  // [ranks] ascending; every request on one rank
  std::vector<double> cost;                    // [ranks] in prompt tokens
};

/// Shares out the groups of a batch: the children of the trees' roots, one tree a key. The cost of requests is
///   tokens of the runs that they need + new_token_cost · sum of expected_new.
/// A group that costs more than 1.5 times the mean share (cost of all / ranks) is handed out by subtrees, these again
/// by theirs, and requests that end at one node one by one; what is above a subtree is then computed on every rank that
/// has a part of it. Parts go, the costliest first, to the rank that costs the least with them. So
///   largest cost <= sum of costs / ranks + costliest part,
/// and where nothing is split, at most (4/3 - 1/(3 ranks)) of the best partition's largest cost (Graham 1969, "Bounds
/// on multiprocessing timing anomalies"). The same on every rank; a rank may get nothing.
/// @param expected_new    tokens that each request is expected to generate, at its number
/// @param new_token_cost  of a generated token, in prompt tokens
RankShares rank_shares(std::span<const PrefixTree> trees, std::span<const double> expected_new, double new_token_cost,
                       int ranks);

/// The requests of a file that a rank answers, ascending: its share of those that are left. Requests of one line stay
/// together, on the rank of the first of them.
/// @param left  their numbers in the file, ascending; a line's are all there, or none of them
/// @param plan  of these requests
std::vector<size_t> share_of_rank(const RequestFile&, std::span<const size_t> left, const BatchPlan& plan, int rank,
                                  int ranks);

}  // namespace tessera
