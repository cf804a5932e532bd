#pragma once
// Lists of numbers in the stages' files.

#include <span>
#include <vector>

#include "core/json.h"

namespace tessera {

template <class T> Json array_of(std::span<const T> numbers) {
  Json all(Json::Array{});
  for (const T number : numbers) all.push_back(number);
  return all;
}
template <class T> Json array_of(const std::vector<T>& numbers) { return array_of(std::span<const T>(numbers)); }

inline std::vector<double> numbers_of(const Json& json) {
  std::vector<double> values;
  for (const Json& value : json.items()) values.push_back(value.as_number());
  return values;
}

}  // namespace tessera
