#pragma once
// What a recipe says of a run whose machines have nothing but a log engine in common. Keys of [spsa].

#include <set>

#include "core/fields.h"

namespace tessera {

struct LooseConfig {
  std::string name, node, packs = "auto", on_fork = "stop";
  std::vector<std::string> server{"nats://127.0.0.1:4222"}, signers;
  std::filesystem::path credentials, tls_ca, tls_cert, tls_key, signing_key;
  std::optional<int64_t> stale_max;
  bool ahead = true;
  double quorum = 0.5, deadline = 3, first_deadline = 60;
  int64_t absent_limit = 8;

  void visit(Fields& v);
  /// The keys that only such a run reads.
  static std::set<std::string> keys();
};

}  // namespace tessera
