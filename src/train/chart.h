#pragma once
// Line charts as SVG text for pages: axes, ticks, a legend, and what a screen reader is told.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera {

/// Text as it stands in HTML and SVG, in attributes too.
std::string escape_html(std::string_view);

/// A number for readers: four significant digits; whole numbers in full, their thousands apart.
std::string short_number(double);

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // (x, y), finite, x rising
};

/// An <svg> with role img, a title and a description of where each curve starts, ends and is lowest. The page styles
/// the classes grid, curve, curve-0, curve-1, ...; curves but the first are dashed, and carry dots that tell their
/// values when they are few. The y axis is logarithmic when all values are above zero and span a factor of more than
/// ten. Of curves with more than 400 points, the means of runs of equal length are drawn.
/// @param id  unique in the page
/// @throws nothing; a chart without points is an empty string
std::string line_chart(const std::string& id, const std::string& title, const std::vector<Curve>& curves);

}  // namespace tessera
