#pragma once
// How gradients are found, or what takes their place. One file or folder each; estimators.cpp lists them. An estimator
// holds its own section of the recipe and answers what others have to know of it; nobody asks for one by its name.

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/recipe.h"
#include "train/stepper.h"
#include "train/trainer_inputs.h"

namespace tessera {

/// The parts of a recipe that an estimator's settings have to go together with.
struct RecipeParts {
  const TrainerConfig& trainer;
  const RunConfig& run;
  const AdapterConfig& adapter;
  const SharingConfig& sharing;
};

/// Keys of a section that a training does not read, and why: "train.estimator is ...".
struct UnreadGroup {
  std::string section;
  std::set<std::string> keys;
  std::string why;
};

/// Bytes that a rank needs beside the model. Where planning equals taking,
/// a counting model gives what a real one would.
struct StepMemory {
  int64_t optimizer = 0;     // its state, or what takes its place
  int64_t activations = 0;   // the arena of a step
  int64_t copies = 0;        // of what is trained
  int64_t handing_over = 0;  // once, when a run goes on: state that ranks hand to each other
};

/// How a step takes less memory, as a hint; empty: no key does.
struct LessMemory {
  std::string way;
  bool lowers_copies = false;  // beside the activations
};

class Estimator {
 public:
  virtual ~Estimator() = default;

  // --- its part of the recipe

  /// The name of its section; empty: it has no keys. The keys are read whether or not the recipe's training uses it.
  virtual std::string section() const { return ""; }
  virtual void visit(Fields&) {}
  /// Sections beside it.
  struct MoreKeys {
    std::string section;
    std::function<void(Fields&)> visit;
  };
  virtual std::vector<MoreKeys> more_sections() { return {}; }
  /// Defaults of other sections that are others with it, set where the recipe does not give the key,
  /// before the recipe is stored.
  virtual void set_defaults(const Recipe&, TrainerConfig&) const {}
  /// Adds a fault for all that does not go together.
  virtual void check(Recipe&, const RecipeParts&) const {}
  /// Keys of its own section and of others.
  virtual std::vector<UnreadGroup> unread() const { return {}; }
  /// @throws UserError naming the key when a job of so many ranks cannot train with it
  virtual void check_ranks(const Recipe&, int) const {}

  // --- its steps

  /// Whether it takes backward passes: the model then has memory for gradients,
  /// and what has no gradient cannot be trained for.
  virtual bool has_gradients() const = 0;
  /// Rows of the data that a step takes, over all who take part. @param shares  that the data is split into
  virtual int64_t rows_per_step(const TrainConfig&, int shares) const = 0;
  /// The inputs outlive the stepper.
  virtual std::unique_ptr<Stepper> make(const TrainerInputs&) const = 0;
  /// @param model  laid out; it need not be allocated
  virtual StepMemory plan(const TrainerConfig&, Model& model, int shares, int threads) const = 0;
  virtual LessMemory less_memory(const TrainerConfig&) const { return {}; }
  /// Passes that a step takes with each row that it counts (StepReport::rows). None: machines take part that are no
  /// ranks of this job, and what they do is not known here.
  struct Passes {
    double forward = 0, backward = 0;
  };
  virtual Passes passes() const = 0;
  /// Payload that a rank sends in a step.
  virtual int64_t wire_bytes(Model&) const = 0;

  // --- what is told of it

  struct Words {
    std::string sent;          // "gradients": what wire_bytes are
    std::string sent_in_step;  // "all-reduced a step": the same in front of the number
    std::string spared{};      // behind it
    std::string lower_rate{};  // behind the advice to lower optimizer.lr
  };
  virtual Words words() const = 0;
  /// How a run of it is begun anew: by run.resume=never, or only with others of these places.
  struct Anew {
    bool by_resume = true;
    std::string places = "run.dir";
  };
  virtual Anew anew() const { return {}; }
};

struct EstimatorKind {
  std::string_view name, help;
  std::unique_ptr<Estimator> (*make)();
};
const std::vector<EstimatorKind>& estimator_kinds();

/// The one that the recipe's train.estimator names.
const Estimator& estimator_of(const TrainerConfig&);

}  // namespace tessera
