#include "model/fold/plan_shapes.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

bool is_linear(const ModelShapes::Tensor& tensor) { return tensor.role == Role::linear; }

/// Whether the layer still has the half that a tensor belongs to.
bool has(const VirtualLayer& layer, const ModelShapes::Tensor& tensor) {
  return half_of(tensor.part) == BlockHalf::attention ? layer.has_attention : layer.has_mlp;
}

/// Sum of `count(tensor)` over what is left of a layer's block.
template <class Count> int64_t sum_over(const VirtualLayer& layer, const ModelShapes& shapes, Count count) {
  int64_t sum = 0;
  for (const ModelShapes::Tensor& tensor : shapes.blocks[static_cast<size_t>(layer.original)])
    if (has(layer, tensor)) sum += count(tensor);
  return sum;
}

int64_t linears_of(const VirtualLayer& layer, const ModelShapes& shapes) {
  return sum_over(layer, shapes, [](const auto& tensor) { return is_linear(tensor) ? tensor.shape.count() : 0; });
}

int64_t norms_of(const VirtualLayer& layer, const ModelShapes& shapes) {
  return sum_over(layer, shapes, [](const auto& tensor) { return is_linear(tensor) ? 0 : tensor.shape.count(); });
}

/// Gains and delta of a child.
int64_t added_by(const VirtualLayer& layer, const FoldPlan& plan, const ModelShapes& shapes) {
  if (layer.is_parent || plan.child.level < ChildLevel::scale) return 0;
  return sum_over(layer, shapes, [&](const ModelShapes::Tensor& tensor) {
    if (!is_linear(tensor)) return int64_t{0};
    const int64_t out = tensor.shape[0], in = tensor.shape[1];
    const int64_t rank = plan.child.level == ChildLevel::lora ? std::min({plan.child.rank, out, in}) : plan.child.rank;
    return out + rank * (out + in);
  });
}

/// In the words of a configuration: what a difference in this axis means.
std::string name_of_axis(Part part, int axis) {
  const bool is_output = axis == 0;
  switch (part) {
    case Part::gate:
    case Part::up:
      return is_output ? "mlp width" : "hidden size";
    case Part::down:
      return is_output ? "hidden size" : "mlp width";
    case Part::q:
      return is_output ? "query width" : "hidden size";
    case Part::k:
    case Part::v:
      return is_output ? "key width" : "hidden size";
    case Part::o:
      return is_output ? "hidden size" : "query width";
    default:
      return "width";
  }
}

std::string difference(const ModelShapes::Tensor& a, const ModelShapes::Tensor& b) {
  if (a.type != b.type || a.role != b.role) return fmt::format("tensors ({} vs {})", a.type, b.type);
  for (int axis = 0; axis < std::min(a.shape.rank, b.shape.rank); ++axis)
    if (a.shape[axis] != b.shape[axis])
      return fmt::format("{} ({} vs {})", name_of_axis(a.part, axis), a.shape[axis], b.shape[axis]);
  return a.shape == b.shape ? "" : fmt::format("{} ({} vs {})", a.type, a.shape.text(), b.shape.text());
}

}  // namespace

BlockHalf half_of(Part part) {
  switch (part) {
    case Part::input_norm:
    case Part::q:
    case Part::k:
    case Part::v:
    case Part::o:
    case Part::q_bias:
    case Part::k_bias:
    case Part::v_bias:
    case Part::o_bias:
    case Part::q_norm:
    case Part::k_norm:
      return BlockHalf::attention;
    case Part::mlp_norm:
    case Part::gate:
    case Part::up:
    case Part::down:
    case Part::gate_bias:
    case Part::up_bias:
    case Part::down_bias:
      return BlockHalf::mlp;
    case Part::embedding:
    case Part::final_norm:
    case Part::head:
      break;
  }
  fail_check(__FILE__, __LINE__, "half_of", "a part outside blocks");
}

ModelShapes shapes_of(std::span<const WeightSpec> specs) {
  ModelShapes shapes;
  for (const WeightSpec& spec : specs) {
    if (spec.layer < 0) {
      if (spec.storage == spec.name) shapes.outside += spec.shape.count();
      continue;
    }
    shapes.blocks.resize(std::max(shapes.blocks.size(), static_cast<size_t>(spec.layer) + 1));
    shapes.blocks[static_cast<size_t>(spec.layer)].push_back({spec.type, spec.part, spec.role, spec.shape});
  }
  return shapes;
}

int64_t half_parameters(const ModelShapes& shapes, int64_t block, BlockHalf half) {
  int64_t sum = 0;
  for (const ModelShapes::Tensor& tensor : shapes.blocks[static_cast<size_t>(block)])
    if (half_of(tensor.part) == half) sum += tensor.shape.count();
  return sum;
}

std::vector<int64_t> half_parameters(const ModelShapes& shapes) {
  std::vector<int64_t> parameters;
  for (int64_t block = 0; block < shapes.layers(); ++block)
    for (const BlockHalf half : {BlockHalf::attention, BlockHalf::mlp})
      parameters.push_back(half_parameters(shapes, block, half));
  return parameters;
}

int64_t model_parameters(const ModelShapes& shapes) {
  int64_t sum = shapes.outside;
  for (const int64_t half : half_parameters(shapes)) sum += half;
  return sum;
}

std::string difference(const ModelShapes& shapes, int64_t block, int64_t other) {
  const auto &a = shapes.blocks[static_cast<size_t>(block)], &b = shapes.blocks[static_cast<size_t>(other)];
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (std::string found = difference(a[i], b[i]); !found.empty()) return found;
  return a.size() == b.size() ? "" : fmt::format("number of tensors ({} vs {})", a.size(), b.size());
}

void require_equal_shapes(const FoldPlan& plan, const ModelShapes& shapes, const std::string& where) {
  for (const FoldGroup& group : plan.groups)
    for (size_t i = 1; i < group.blocks.size(); ++i)
      if (const auto found = difference(shapes, group.blocks[i - 1], group.blocks[i]); !found.empty())
        throw UserError(where,
                        fmt::format("fold: blocks {} and {} differ in {} and cannot share", group.blocks[i - 1],
                                    group.blocks[i], found),
                        "put them into groups of their own");
}

int64_t stored_parameters(const FoldPlan& plan, const ModelShapes& shapes) {
  int64_t sum = shapes.outside, counted_groups = 0;
  for (const VirtualLayer& layer : virtual_layers(plan)) {
    const bool is_first = layer.group == counted_groups;
    if (is_first) ++counted_groups, sum += linears_of(layer, shapes);
    if (is_first || plan.child.level != ChildLevel::tie) sum += norms_of(layer, shapes);
    sum += added_by(layer, plan, shapes);
  }
  return sum;
}

int64_t computed_parameters(const FoldPlan& plan, const ModelShapes& shapes) {
  int64_t sum = shapes.outside;
  for (const VirtualLayer& layer : virtual_layers(plan))
    sum += linears_of(layer, shapes) + norms_of(layer, shapes) + added_by(layer, plan, shapes);
  return sum;
}

}  // namespace tessera
