#pragma once
// Small models of shared weights in training, and the projection that a step is compared with.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "model/export.h"
#include "support/rps.h"
#include "train/backprop.h"
#include "train/estimator.h"
#include "train/stepper.h"
#include "train/training.h"

namespace tessera::test {

/// The numbers of the shared tensors' weights, in the order of the flat range: s(i) · λ in `coefficient`, h(i)
/// in `cell`.
struct Map {
  std::vector<int64_t> cell;
  std::vector<double> coefficient;
  std::vector<double> d;  // [cells]

  Map(const std::vector<double>& lambda_of_weight, int64_t cells, uint64_t seed = 123321)
      : d(static_cast<size_t>(cells)) {
    const PageFold page{seed, cells};
    for (size_t i = 0; i < lambda_of_weight.size(); ++i) {
      cell.push_back(page.cell(static_cast<int64_t>(i)));
      coefficient.push_back(page.sign(static_cast<int64_t>(i)) * lambda_of_weight[i]);
      d[cell.back()] += coefficient.back() * coefficient.back();
    }
  }
  /// Π = M D⁻¹ Mᵀ, whole.
  std::vector<double> projector() const {
    const size_t n = cell.size();
    std::vector<double> pi(n * n);
    for (size_t i = 0; i < n; ++i)
      for (size_t k = 0; k < n; ++k)
        if (cell[i] == cell[k]) pi[i * n + k] = coefficient[i] * coefficient[k] / d[cell[i]];
    return pi;
  }
};

inline std::vector<double> times(const std::vector<double>& matrix, const std::vector<double>& x) {
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i)
    y[i] = std::inner_product(x.begin(), x.end(), matrix.begin() + static_cast<int64_t>(i * x.size()), 0.0);
  return y;
}

inline double norm(const std::vector<double>& x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

inline std::vector<double> difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> c(a.size());
  for (size_t i = 0; i < a.size(); ++i) c[i] = a[i] - b[i];
  return c;
}

inline void append(std::vector<double>& list, const ConstView& view) {
  for (int64_t i = 0; i < view.shape.count(); ++i) list.push_back(element(view, i));
}

class RpsTraining : public Training {
 protected:
  RpsTraining() : Training(40) {
    own_.ctx.threads = 1;  // models this small would only wait for another
    config_.train.micro_batch = 2;
    config_.train.clip = 0;
    config_.optimizer.schedule = "constant";
  }
  Model::Settings settings(const SharingConfig& sharing, const test::TinyConfig& config = {}) {
    Model::Settings s = test::tiny_settings(folder_.path(), config);
    s.sharing = sharing;
    s.train_base = true;
    return s;
  }
  /// The model's weights as a dense folder.
  std::filesystem::path exported(Model& model, const std::string& name = "dense") {
    export_merged(folder_ / name, model, folder_.path(), own_.ctx);
    return folder_ / name;
  }
  Model::Settings given(const std::filesystem::path& folder, const SharingConfig& sharing = {}) {
    Model::Settings s;
    s.model.path = folder;
    s.max_position = 64;
    s.sharing = sharing;
    s.train_base = true;
    return s;
  }
  /// Reports of the trainer's own steps.
  std::vector<StepReport> train(Model& model, int64_t steps) {
    config_.train.steps = steps;
    const TrainerInputs in = inputs(model);
    const auto stepper = estimator_of(config_).make(in);
    stepper->restore();
    std::vector<StepReport> reports;
    for (int64_t step = 1; step <= steps; ++step) reports.push_back(*stepper->take(step));
    return reports;
  }
  std::vector<double> losses(Model& model, int64_t steps) {
    std::vector<double> list;
    for (const StepReport& report : train(model, steps)) list.push_back(report.loss);
    return list;
  }
  /// All weights of the model's shared (or other) tensors, one behind the other in the order of the specs.
  std::vector<double> weights(Model& model, bool shared = true) {
    std::vector<double> list;
    const auto& specs = model.decoder().specs();
    for (size_t i = 0; i < specs.size(); ++i) {
      const WeightSpec& spec = specs[i];
      const bool is_shared = spec.role == Role::linear || spec.role == Role::embedding;
      if (is_shared != shared || spec.storage != spec.name) continue;
      append(list, test::gathered(own_.ctx, model.pool(), *model.decoder().weight(static_cast<int>(i))).view());
    }
    return list;
  }
  void expect_same_weights(Model& a, Model& b, const std::string& what) {
    for (int i = 0; i < static_cast<int>(a.decoder().specs().size()); ++i)
      EXPECT_TRUE(test::same_bytes(test::gathered(own_.ctx, a.pool(), *a.decoder().weight(i)).view(),
                                   test::gathered(own_.ctx, b.pool(), *b.decoder().weight(i)).view()))
          << a.decoder().specs()[i].name << ", " << what;
  }
  PackedBatch batch(std::vector<int64_t> rows = {0, 1, 2}) const { return data_.batch(rows, 0); }
};

}  // namespace tessera::test
