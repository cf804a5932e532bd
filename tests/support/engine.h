#pragma once
// What a forward pass needs: an arena and a context of a backend; a model of tests/golden.

#include <memory>

#include "kernels/context.h"
#include "model/model.h"
#include "support/golden.h"

namespace tessera::test {

/// One thread by default: on tiny models the threads would only wait for each other.
struct Engine {
  explicit Engine(const std::string& backend = "cpu", int64_t bytes = int64_t{16} << 20, int threads = 1)
      : arena(bytes),
        ctx{.device = {}, .stream = {}, .kernels = kernels_for({}, backend), .scratch = arena, .threads = threads} {}
  Arena arena;
  Context ctx;
};

inline std::unique_ptr<Model> load_model(const std::filesystem::path& folder, int64_t max_position,
                                         const AdapterConfig& adapter = {}) {
  Model::Settings settings;
  settings.model.path = folder;
  settings.adapter = adapter;
  settings.max_position = max_position;
  settings.seed = 5;
  return std::make_unique<Model>(settings);
}

}  // namespace tessera::test
