#include "model/saved_adapter.h"

#include "core/error.h"
#include "model/adapter_io.h"
#include "model/native_adapter.h"
#include "model/peft_adapter.h"

namespace tessera {

namespace fs = std::filesystem;

std::unique_ptr<SavedAdapter> open_adapter(const fs::path& given, const std::string& where) {
  const fs::path folder = adapter_folder(given);
  if (fs::exists(folder / "adapter.json")) return open_native_adapter(folder, where);
  if (fs::exists(folder / "adapter_config.json")) return open_peft_adapter(folder, where);
  const std::string fault = !fs::exists(given)         ? "does not exist"
                            : !fs::is_directory(given) ? "is a file"
                                                       : "holds neither adapter.json nor adapter_config.json";
  throw UserError(where, fmt::format("the adapter's folder \"{}\" {}", given.string(), fault),
                  "name the folder of an adapter that a run saved, the run's, or one that PEFT saved");
}

LoadedAdapter::LoadedAdapter(const SavedAdapter& saved, Model& model)
    : pool_(DType::f32, model.pool().memory(), model.pool().device()) {
  AdapterWeights deltas = model.deltas_with(saved.attach(model, pool_));
  pool_.allocate(0, ParameterPool::Gradients::no);
  bound_ = std::make_unique<BoundAdapter>(std::move(deltas), model.pool(), PoolRead{&model.pool()});
}

}  // namespace tessera
