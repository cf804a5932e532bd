#include "cli/jobs/generate_adapters.h"

#include <algorithm>

#include "cli/plan.h"
#include "core/error.h"

namespace tessera {
namespace {

bool is_in_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

std::set<std::string> named_by(std::span<const Request> requests) {
  std::set<std::string> names;
  for (const Request& request : requests) names.insert(request.adapter);
  return names;
}

}  // namespace

void AdapterFolders::visit(Fields& v) {
  for (auto& [name, folder] : by_name)
    v(name, folder, anything(), "folder of an adapter that requests name so", OnResume::free);
}

void AdapterFolders::check(SectionCheck& own) const {
  for (const auto& [name, folder] : by_name) {
    if (name == "base")
      own.fault(name, "an adapter cannot be called \"base\", which is the model without one", "give it another name");
    if (name.empty() || !std::all_of(name.begin(), name.end(), is_in_name))
      own.fault(name, fmt::format("\"{}\" is no name of an adapter", name), "use letters, digits, \"-\" and \"_\"");
    if (folder.empty())
      own.fault(name, fmt::format("the folder of the adapter \"{}\" is empty", name), "name its folder");
  }
}

void read_adapter_folders(Recipe& recipe, AdapterFolders& folders) {
  for (const std::string& name : recipe.given_keys("generate.adapters")) folders.by_name[name];
  recipe.read("generate.adapters", folders);
}

NamedAdapters::NamedAdapters(const JobInputs& in, const AdapterFolders& folders) {
  for (const auto& [name, folder] : folders.by_name) {
    std::shared_ptr<const SavedAdapter> saved = open_adapter(folder, in.recipe.where("generate.adapters", name));
    for (const auto& [other, known] : by_name_)
      if (known->content() == saved->content()) saved = known;
    by_name_[name] = std::move(saved);
  }
}

std::set<std::string> NamedAdapters::names() const {
  std::set<std::string> names;
  for (const auto& [name, saved] : by_name_) names.insert(name);
  return names;
}

BatchAdapters NamedAdapters::batch(const Model& model, int64_t most_together) const {
  BatchAdapters batch{.most_together = most_together};
  if (!model.adapter()) batch.contents[""] = "base";
  for (const auto& [name, saved] : by_name_) batch.contents[name] = saved->content();
  return batch;
}

std::map<std::string, std::string> NamedAdapters::contents_of(std::span<const Request> requests) const {
  std::map<std::string, std::string> contents;
  for (const std::string& name : named_by(requests))
    if (const auto found = by_name_.find(name); found != by_name_.end()) contents[name] = found->second->content();
  return contents;
}

void NamedAdapters::require_base(Model& model) const {
  for (const auto& [name, saved] : by_name_) saved->require_base(model);
}

std::string AdapterFigures::line() const {
  return fmt::format("adapter \"{}\": {}, rank {}, {}{}", name, method, rank,
                     twin.empty() ? megabytes(bytes) : fmt::format("the same as \"{}\"", twin),
                     is_named ? "" : "; no request names it");
}

Json to_json(const std::vector<AdapterFigures>& all) {
  Json list = Json::array();
  for (const AdapterFigures& adapter : all)
    list.push_back(Json::object()
                       .set("name", adapter.name)
                       .set("method", adapter.method)
                       .set("rank", adapter.rank)
                       .set("bytes", adapter.bytes));
  return list;
}

std::vector<AdapterFigures> NamedAdapters::figures(Model& model, std::span<const Request> requests) const {
  const std::set<std::string> named = named_by(requests);
  std::map<std::string, AdapterFigures> first;  // of each content
  std::vector<AdapterFigures> all;
  for (const auto& [name, saved] : by_name_) {
    AdapterFigures adapter{
        .name = name, .method = saved->method(), .rank = saved->rank(), .is_named = named.contains(name)};
    const auto [twin, is_new] = first.try_emplace(saved->content(), adapter);
    if (is_new)
      twin->second.bytes = LoadedAdapter(*saved, model).bytes();
    else
      adapter.twin = twin->second.name;
    adapter.bytes = twin->second.bytes;
    all.push_back(std::move(adapter));
  }
  return all;
}

AdaptersAtWork::AdaptersAtWork(const NamedAdapters& adapters, Model& model, std::span<const Request> requests) {
  for (const std::string& name : named_by(requests)) {
    const auto found = adapters.all().find(name);
    if (found == adapters.all().end()) continue;
    auto& loaded = loaded_[found->second->content()];
    if (!loaded) loaded = std::make_unique<LoadedAdapter>(*found->second, model);
    by_name_[name] = &loaded->bound();
  }
  by_name_["base"] = nullptr;
  if (!model.adapter()) {
    by_name_["base"] = model.bound_adapter();
  } else if (AdapterWeights deltas = model.deltas_with({}); !deltas.by_weight.empty()) {
    base_.emplace(std::move(deltas), model.pool(), PoolRead{&model.pool()});
    by_name_["base"] = &*base_;
  }
}

int64_t AdaptersAtWork::bytes() const {
  int64_t bytes = base_ ? base_->assembled_bytes() : 0;
  for (const auto& [content, loaded] : loaded_) bytes += loaded->bytes();
  return bytes;
}

void AdaptersAtWork::assemble(const Context& ctx) {
  if (base_) base_->assemble(ctx);
  for (auto& [content, loaded] : loaded_) loaded->bound().assemble(ctx);
}

}  // namespace tessera
