#include "model/parameter_pool.h"

#include <algorithm>
#include <cstring>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/random.h"

namespace tessera {
namespace {

constexpr int64_t kCopied =
    int64_t{1} << 22;  // elements that are copied before the pages they were read from are let go

void copy_source(const Init& init, TensorView values, int64_t begin, int64_t end) {
  const ConstView& source = init.source;
  const bool plain = source.dtype == values.dtype;
  const int64_t width = size_of(source.dtype), blocks = (end - begin + 4095) / 4096;
  const auto* from = static_cast<const std::byte*>(source.data);
#pragma omp parallel for schedule(static) if (end - begin > 1 << 16)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = begin + block * 4096, last = std::min(end, first + 4096);
    if (plain)
      std::memcpy(static_cast<std::byte*>(values.mutable_data()) + first * width, from + first * width,
                  static_cast<size_t>((last - first) * width));
    else
      for (int64_t i = first; i < last; ++i) set_element(values, i, element(source, i));
  }
  // Pages that were read count as this process's memory until they are let go;
  // of a large model they would be all of it.
  if (init.file) init.file->forget({from + begin * width, static_cast<size_t>((end - begin) * width)});
}

}  // namespace

SlotId ParameterPool::reserve(std::string name, SlotOptions options) {
  TS_CHECK(!allocated_, "slot \"{}\" added after allocate()", name);
  Slot slot;
  slot.name = std::move(name);
  slot.trainable = options.trainable;
  slot.options = std::move(options);
  slots_.push_back(std::move(slot));
  return static_cast<SlotId>(slots_.size()) - 1;
}

SlotId ParameterPool::adopt(std::string name, ConstView mapped, std::shared_ptr<const MappedFile> file) {
  const SlotId id = reserve(std::move(name), {.shape = mapped.shape, .trainable = false, .init = {}});
  slots_[id].frozen = mapped;
  slots_[id].in_file = true;
  slots_[id].file = std::move(file);
  return id;
}

// By name, not as reserved: checkpoints, logs and digests go by this order, and must not depend on which part of the
// model was built first. For the same reason first values are keyed by a slot's name.
void ParameterPool::lay_out() {
  std::vector<Slot*> order;
  for (Slot& slot : slots_)
    if (slot.trainable) order.push_back(&slot);
  std::sort(order.begin(), order.end(), [](const Slot* a, const Slot* b) { return a->name < b->name; });
  for (size_t i = 1; i < order.size(); ++i)
    TS_CHECK(order[i - 1]->name != order[i]->name, "two slots are called \"{}\"", order[i]->name);
  std::vector<std::pair<std::string, FlatRange>> parts;
  int64_t total = 0;
  for (Slot* slot : order) {
    SlotOptions& o = slot->options;
    slot->begin = total;
    flat_.slots.push_back({slot->name, o.shape, total, o.weight_decay, o.step_scale, std::move(o.adaptive_steps)});
    int64_t begin = total;
    for (const SlotPart& part : o.parts) {
      parts.push_back({part.name, {begin, total + part.end}});
      begin = total + part.end;
    }
    if (o.parts.empty()) parts.push_back({slot->name, {total, total + o.shape.count()}});
    total += (o.shape.count() + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
  }
  std::stable_sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [name, range] : parts) flat_.parts.push_back(range);
  flat_.values = storage_.allocate({total}, dtype_);
}

void ParameterPool::allocate(uint64_t seed, Gradients gradients, Rules rules) {
  TS_CHECK(!allocated_, "allocate() called twice");
  allocated_ = true;
  lay_out();
  if (gradients == Gradients::yes) flat_.grads = storage_.allocate(flat_.values.shape, dtype_);
  for (Slot& slot : slots_) {
    if (!slot.trainable && slot.in_file) {
      if (device() != Device{}) upload_slot(slot);
      continue;
    }
    if (!slot.trainable)
      slot.frozen = storage_.allocate(slot.options.shape, dtype_ == DType::f64 ? dtype_ : slot.options.storage);
    if (memory() == Memory::counted) continue;
    const auto id = static_cast<SlotId>(&slot - slots_.data());
    const WrittenOnHost values(mutable_values(id));
    write_first_values(slot.options.init, seed, slot.name, values.view(), rules);
  }
}

/// A file's tensor is read where the file was mapped by the CPU alone; other devices hold a copy.
void ParameterPool::upload_slot(Slot& slot) {
  const ConstView mapped = slot.frozen;
  slot.frozen = storage_.allocate(mapped.shape, mapped.dtype);
  if (memory() == Memory::counted) return;
  copy(mapped, TensorView(slot.frozen));
  slot.file->forget({static_cast<const std::byte*>(mapped.data), static_cast<size_t>(mapped.bytes())});
  slot.file.reset();
}

void write_first_values(const Init& init, uint64_t seed, const std::string& name, TensorView values, Rules rules) {
  const int64_t count = values.shape.count();
  if (init.formula) return init.formula(values, seed);
  if (!init.source.empty()) {
    TS_CHECK(init.source.shape.count() == count, "source of \"{}\" is {}, expected {}", name, init.source.shape.text(),
             values.shape.text());
    for (int64_t begin = 0; begin < count; begin += kCopied)
      copy_source(init, values, begin, std::min(count, begin + kCopied));
    return;
  }
  if (init.kind == Init::Kind::zeros) return;  // memory starts at zero
  const RandomStream stream(seed, fnv1a(name.data(), name.size()));
#pragma omp parallel for schedule(static) if (count > 1 << 14)  // a small slot is drawn before a team is awake
  for (int64_t i = 0; i < count; ++i) {
    double value = 1;
    if (init.kind == Init::Kind::normal) value = init.scale * stream.normal(static_cast<uint64_t>(i), rules);
    if (init.kind == Init::Kind::uniform) value = init.scale * (2.0 * stream.uniform(static_cast<uint64_t>(i)) - 1.0);
    set_element(values, i, value);
  }
}

ConstView ParameterPool::values(SlotId id) const {
  const Slot& slot = slots_[id];
  TS_CHECK(allocated_, "slot \"{}\" read before allocate()", slot.name);
  if (!slot.trainable) return slot.frozen;
  return const_cast<ParameterPool*>(this)->mutable_values(id);
}

TensorView ParameterPool::mutable_values(SlotId id) {
  const Slot& slot = slots_[id];
  if (!slot.trainable) return TensorView(slot.frozen);
  const int64_t begin = slot.begin;
  return flat_.values.slice_rows(begin, begin + slot.options.shape.count()).reshape(slot.options.shape);
}

TensorView ParameterPool::grads(SlotId id) {
  const Slot& slot = slots_[id];
  TS_CHECK(slot.trainable, "frozen slot \"{}\" has no gradient", slot.name);
  if (flat_.grads.empty()) return {};
  return flat_.grads.slice_rows(slot.begin, slot.begin + slot.options.shape.count()).reshape(slot.options.shape);
}

void ParameterPool::zero_grads() {
  if (!flat_.grads.empty()) zero(flat_.grads);
}

int64_t ParameterPool::trainable_count() const {
  int64_t count = 0;
  for (const Slot& slot : slots_) count += slot.trainable ? slot.options.shape.count() : 0;
  return count;
}

int64_t ParameterPool::frozen_count() const {
  int64_t count = 0;
  for (const Slot& slot : slots_) count += slot.trainable ? 0 : slot.options.shape.count();
  return count;
}

int64_t ParameterPool::frozen_mapped_bytes() const {
  int64_t bytes = 0;
  for (const Slot& slot : slots_) bytes += slot.file ? slot.frozen.bytes() : 0;
  return bytes;
}

}  // namespace tessera
