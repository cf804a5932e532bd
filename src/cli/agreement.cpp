#include "cli/agreement.h"

#include "core/error.h"
#include "io/files.h"
#include "model/config_fingerprint.h"
#include "train/checkpoint.h"

namespace tessera {
namespace {

/// A large file is hashed once a node; the other ranks of the node pass nothing, and agree with everyone.
void require_equal_where_known(Communicator& world, const std::string& what, const std::string& value) {
  std::string first;
  for (const auto& bytes : world.all_gather(std::as_bytes(std::span(value)))) {
    const std::string other(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (other.empty()) continue;
    if (first.empty()) first = other;
    if (other != first)
      throw UserError("", fmt::format("{} differ between the machines of this job ({} and {})", what, first, other),
                      "copy the same files to every machine");
  }
}

}  // namespace

void require_agreement(const JobInputs& in, Model& model, const Datasets& sets) {
  require_equal(in.world, "the training data", sets.train ? sets.train->hash() : "");
  require_equal(in.world, "the evaluation data", sets.eval ? sets.eval->hash() : "");
  require_agreement(in, model);
}

void require_agreement(const JobInputs& in, Model& model) {
  require_equal(in.world, "the numbers of config.json", config_fingerprint(model.config()));
  require_equal(in.world, "the weights' layout", fmt::format("{:016x}", model.views_fingerprint()));
  require_equal(in.world, "the trained parameters", values_hash(model.pool().trainable()));
  require_equal_where_known(in.world, "the base weights",
                            in.world.size() > 1 && in.world.local_rank() == 0 ? model.base_fingerprint() : "");
}

}  // namespace tessera
