#include "train/row_work.h"

#include <algorithm>

namespace tessera {
namespace {

bool is_trained(const ViewPtr& view) { return view && view->is_trainable(); }

/// A model's products, weight by weight.
class Products {
 public:
  explicit Products(Model& model) : model_(model), decoder_(model.decoder()), first_(first_trained()) {}

  /// Of one token that all products see, those of `role`.
  RowWork of(Role role) const {
    RowWork work;
    for (size_t i = 0; i < decoder_.specs().size(); ++i)
      if (decoder_.specs()[i].role == role) add(i, work);
    return work;
  }
  /// A layer's attention, of one token that sees so many keys.
  RowWork attention(int layer, double keys) const {
    if (!decoder_.block_weights(layer).has_attention()) return {};
    const double forward = 4 * keys * static_cast<double>(model_.config().query_width());
    return {forward, layer >= first_ ? 2.5 * forward : 0};
  }

 private:
  std::span<const LowRank> deltas(size_t i) const {
    if (!model_.bound_adapter()) return {};
    return model_.bound_adapter()->weights().by_weight[i];
  }
  bool is_trained_at_all(size_t i) const {
    const auto weight = static_cast<int>(i);
    return is_trained(decoder_.weight(weight)) || is_trained(decoder_.gain(weight)) ||
           std::any_of(deltas(i).begin(), deltas(i).end(),
                       [](const LowRank& delta) { return is_trained(delta.a) || is_trained(delta.bt); });
  }
  /// Where the way back ends: the lowest layer with something that is trained, −1 the embedding, the number of layers
  /// what is behind them.
  int first_trained() const {
    int first = decoder_.num_layers();
    for (size_t i = 0; i < decoder_.specs().size(); ++i) {
      const WeightSpec& spec = decoder_.specs()[i];
      if (is_trained_at_all(i)) first = std::min(first, spec.role == Role::embedding ? -1 : layer_of(spec));
    }
    return first;
  }
  int layer_of(const WeightSpec& spec) const { return spec.layer < 0 ? decoder_.num_layers() : spec.layer; }
  /// Whether the gradient of what the weight reads is wanted: there is something to train in front of it.
  bool has_trained_in_front(const WeightSpec& spec) const {
    const int layer = layer_of(spec);
    if (layer != first_) return layer > first_;
    if (spec.role == Role::head) return is_trained_part(-1, Part::final_norm);
    const bool reads_input = spec.part == Part::q || spec.part == Part::k || spec.part == Part::v;
    return !reads_input || is_trained_part(layer, Part::input_norm);
  }
  bool is_trained_part(int layer, Part part) const {
    for (size_t i = 0; i < decoder_.specs().size(); ++i)
      if (decoder_.specs()[i].layer == layer && decoder_.specs()[i].part == part) return is_trained_at_all(i);
    return false;
  }
  void add(size_t i, RowWork& work) const {
    const WeightSpec& spec = decoder_.specs()[i];
    const double product = 2 * static_cast<double>(spec.shape.count());
    const bool goes_back = layer_of(spec) >= first_, goes_on = has_trained_in_front(spec);
    work.forward += product;
    if (goes_on) work.backward += product;
    if (is_trained(decoder_.weight(static_cast<int>(i)))) work.backward += product;
    for (const LowRank& delta : deltas(i)) {
      const double down = 2 * static_cast<double>(delta.rank() * spec.shape[1]),
                   up = 2 * static_cast<double>(delta.rank() * spec.shape[0]);
      work.forward += down + up;
      if (goes_back && (goes_on || is_trained(delta.a))) work.backward += up;  // of x Aᵀ
      if (goes_on) work.backward += down;
      if (is_trained(delta.a)) work.backward += down;
      if (is_trained(delta.bt)) work.backward += up;
    }
  }

  Model& model_;
  const DecoderModel& decoder_;
  const int first_;
};

}  // namespace

RowWork row_work(Model& model, const PackedDataset& data) {
  const auto rows = static_cast<double>(data.rows());
  const double tokens = data.fill() * static_cast<double>(data.sequence_length()),
               scored = static_cast<double>(data.scored_tokens()) / rows;
  const Products products(model);
  const RowWork linears = products.of(Role::linear), head = products.of(Role::head);
  RowWork work{tokens * linears.forward + scored * head.forward, tokens * linears.backward + scored * head.backward};
  for (int layer = 0; layer < model.decoder().num_layers(); ++layer) {
    const RowWork attention = products.attention(layer, data.mean_keys(model.config().attention_of(layer).window));
    work.forward += tokens * attention.forward;
    work.backward += tokens * attention.backward;
  }
  return work;
}

}  // namespace tessera
