#pragma once
// [generate.adapters]: adapters that answer by name beside the run's own, from the recipe to the engine.
//
//   [generate.adapters]            NamedAdapters          AdaptersAtWork
//   law = "runs/law/adapter"  ──►  opened, checked   ──►  those that requests name, each with a pool of its own
//   tax = "tax-peft"

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "cli/jobs.h"
#include "infer/batch_plan.h"
#include "model/saved_adapter.h"

namespace tessera {

/// The section: a folder for each name that the user gives.
struct AdapterFolders {
  std::map<std::string, std::filesystem::path> by_name;

  void visit(Fields&);
  void check(SectionCheck&) const;
};
void read_adapter_folders(Recipe&, AdapterFolders&);

/// What --check tells of an adapter.
struct AdapterFigures {
  std::string name, method;
  int64_t rank = 0, bytes = 0;
  std::string twin{};     // a name before it with the same content, whose bytes are its own; empty: none
  bool is_named = false;  // by a request
  std::string line() const;
};
/// [{"name", "method", "rank", "bytes"}, ..]
Json to_json(const std::vector<AdapterFigures>&);

/// All that the recipe names, opened. Names of one content are one adapter.
class NamedAdapters {
 public:
  NamedAdapters() = default;
  /// @throws UserError as open_adapter, with the place of the recipe's key
  NamedAdapters(const JobInputs&, const AdapterFolders&);

  std::set<std::string> names() const;
  /// As a plan needs it. @param model  that answers
  BatchAdapters batch(const Model& model, int64_t most_together) const;
  /// Name -> hash of contents, of those that requests name.
  std::map<std::string, std::string> contents_of(std::span<const Request>) const;
  /// The adapter of a name; null: another one of the same content is it.
  const std::map<std::string, std::shared_ptr<const SavedAdapter>>& all() const { return by_name_; }
  /// @throws UserError when one does not fit the model. Hashes the model's weights when one says its base
  void require_base(Model&) const;
  /// What each of them is. @param model  counted: @throws UserError when one does not fit it
  std::vector<AdapterFigures> figures(Model& model, std::span<const Request>) const;

 private:
  std::map<std::string, std::shared_ptr<const SavedAdapter>> by_name_;
};

/// Those that requests name, on a model that outlives them. Of a counted model they are counted.
class AdaptersAtWork {
 public:
  AdaptersAtWork(const NamedAdapters&, Model&, std::span<const Request>);
  /// As run_engine wants them; "base" among them.
  const std::map<std::string, BoundAdapter*>& by_name() const { return by_name_; }
  int64_t bytes() const;
  void assemble(const Context&);

 private:
  std::map<std::string, std::unique_ptr<LoadedAdapter>> loaded_;  // by content
  std::optional<BoundAdapter> base_;  // of rows without an adapter, where the model has both one and deltas of its base
  std::map<std::string, BoundAdapter*> by_name_;
};

}  // namespace tessera
