#pragma once
// What the answers of a batch depend on, so that a run goes on with its own answers only.

#include <map>
#include <string>

#include "core/json.h"
#include "infer/requests/request_file.h"

namespace tessera {

/// SHA-256 over all requests in order, with every default resolved and their tokens, and what their lines of answers
/// repeat of them.
std::string batch_hash(const RequestFile&);

/// Everything that answers depend on. Memory, paging, prefix mode, step size, threads, ranks, page size, order of
/// eviction and `follow` are not in it.
struct RunIdentity {
  std::string batch{};   // batch_hash
  int64_t requests = 0;  // lines of answers
  std::map<std::string, std::string>
      model{};  // "base": hash of its contents, or "checkpoint": its seal; "tokenizer", ..
  std::map<std::string, std::string> adapters{};  // name -> hash of its contents
  std::map<std::string, std::string> options{};   // kv_dtype, weights, deterministic, all keys of [kv]

  /// 64 hex digits: SHA-256 of all of it and of the version of this format.
  std::string hex() const;
};

/// As the members "batch", "model", "adapters", "options" and "requests", and back.
/// @throws UserError without a place where one is missing or something else
Json to_json(const RunIdentity&);
RunIdentity run_identity_of(const Json&);

/// A line for each part that differs, with both values: "options.kv_dtype was f32, now int8"; empty: none does.
std::string identity_differences(const RunIdentity& before, const RunIdentity& now);

}  // namespace tessera
