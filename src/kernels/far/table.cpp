#include "core/device/memory.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/far/far_kernels.h"

namespace tessera::far {
namespace {

// An argument as the CPU's op takes it. Numbers and the host's own lists (votes, factors) stay as they are.
template <class T> void shift(T& value);

void shift_view(ConstView& view) {
  if (view.data != nullptr) view.data = static_cast<const std::byte*>(view.data) + far_shift();
  view.device = {};
}

template <class T> IndexArray<T> shifted(const IndexArray<T>& array) {
  const auto* data = reinterpret_cast<const std::byte*>(array.data());
  return {array.host(), reinterpret_cast<const T*>(data ? data + far_shift() : nullptr), {}};
}

template <class T> struct IsIndexArray : std::false_type {};
template <class T> struct IsIndexArray<IndexArray<T>> : std::true_type {};

template <class T>
concept HasViews = requires(T& args) {
  T::visit(args, [](auto&) {});
};

template <class T> void shift(T& value) {
  if constexpr (std::is_base_of_v<ConstView, T>)
    shift_view(value);
  else if constexpr (IsIndexArray<T>::value)
    value = shifted(value);
  else if constexpr (HasViews<T>)
    T::visit(value, [](auto& part) { shift(part); });
}

template <class T> T at_the_cpu(T value) {
  shift(value);
  return value;
}

template <auto op, class Function> struct Call;
template <auto op, class... Arguments> struct Call<op, void(const Context&, Arguments...)> {
  static void run(const Context& ctx, Arguments... arguments) {
    Arena scratch = ctx.scratch.shifted(far_shift(), {});
    const Context near{
        .device = {}, .stream = ctx.stream, .kernels = cpu::table(), .scratch = scratch, .threads = ctx.threads};
    (cpu::table().*op)(near, at_the_cpu<std::decay_t<Arguments>>(arguments)...);
    ctx.scratch.note_peak(scratch);
  }
};

}  // namespace

const Kernels& table() {
  static const Kernels kTable = [] {
    Kernels table{};
    table.backend = "far";
    Kernels::visit([&]<auto op>(const char*, Kernels::Field<op>) { table.*op = Call<op, Op<op>>::run; });
    return table;
  }();
  return kTable;
}

}  // namespace tessera::far
