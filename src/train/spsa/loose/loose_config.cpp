#include "train/spsa/loose/loose_config.h"

namespace tessera {

void LooseConfig::visit(Fields& v) {
  v("name", name, anything(), "transport = \"nats\": the run's name at the server; empty: the recipe's",
    OnResume::free);
  v("node", node, anything(), "transport = \"nats\": this machine's name at the server; empty: the host's",
    OnResume::free);
  v("server", server, anything(), "transport = \"nats\": servers, tried in this order", OnResume::free);
  v("credentials", credentials, path_as_typed(),
    "a file of two lines, user and password, that only its owner may read; empty: a server that asks for none",
    OnResume::free);
  v("tls_ca", tls_ca, path_as_typed(), "certificate of the authority that the server's is checked by; empty: no TLS",
    OnResume::free);
  v("tls_cert", tls_cert, path_as_typed(), "this machine's certificate, where the server asks for one", OnResume::free);
  v("tls_key", tls_key, path_as_typed(), "and its key", OnResume::free);
  v("stale_max", stale_max, in_range(0, 15),
    "rounds that a vote may be late by and still count; default 2 with transport = \"nats\", else 0");
  v("ahead", ahead, anything(), "measure one round ahead while a record is under way (with stale_max above 0)",
    OnResume::free);
  v("quorum", quorum, above(0, 1), "share of the machines whose votes a packer waits for at least", OnResume::free);
  v("deadline", deadline, in_range(1, 100), "how long it waits for the others, in medians of the last 16 rounds",
    OnResume::free);
  v("first_deadline", first_deadline, in_range(1, 3600), "seconds that it waits in the first round", OnResume::free);
  v("absent_limit", absent_limit, in_range(1, 65535), "rounds of silence after which a machine loses its lane",
    OnResume::free);
  v("packs", packs, one_of({"auto", "true", "false"}),
    "whether this machine forms records of rounds; auto: when the server lets it", OnResume::free);
  v("signing_key", signing_key, path_as_typed(), "this machine's Ed25519 key (PEM), where records are signed",
    OnResume::free);
  v("signers", signers, anything(), "public keys, 64 hexadecimal digits each: whose records are taken; none: all");
  v("on_fork", on_fork, one_of({"stop", "follow"}),
    "when the server's log is another than this machine's: stop, or take the server's and lose what only this one has",
    OnResume::free);
}

std::set<std::string> LooseConfig::keys() {
  LooseConfig config;
  Fields fields;
  config.visit(fields);
  std::set<std::string> names;
  for (const Field& field : fields.list) names.insert(field.key);
  return names;
}

}  // namespace tessera
