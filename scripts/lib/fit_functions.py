"""The coefficients of src/core/functions, computed from the functions themselves for scripts/fit_functions.

A polynomial p of a function f on an interval is the one whose greatest weighted error |w (p - f)| is least (Remez: the
error takes its greatest value, with alternating signs, at one place more than there are coefficients). Its coefficients
are then rounded: the lowest first, after which the others are fitted again to what is left, and so on, which loses far
less than rounding all of them at once.
"""

import re
import sys

from mpmath import mp, mpf

mp.prec = 240
GRID = 600


def rounded(value, bits):
    """To `bits` significant bits, ties to even."""
    with mp.workprec(bits):
        return +mpf(value)


def hexadecimal(value, bits):
    """A C literal of exactly this value; `bits` is 24 for float and 53 for double."""
    assert rounded(value, bits) == value
    sign, mantissa, exponent, width = mpf(value)._mpf_
    if not mantissa:
        return "0x0p+0"
    digits = -(-(width - 1) // 4)
    fraction = (int(mantissa) - (1 << (width - 1))) << (4 * digits - (width - 1))
    tail = f".{fraction:0{digits}x}".rstrip("0").rstrip(".") if digits else ""
    return f"{'-' if sign else ''}0x1{tail}p{exponent + width - 1:+d}"


def solve(points, degree, target, weight):
    """Coefficients and level e with w (p - target) = (-1)^i e at the points."""
    n = degree + 1
    matrix, right = mp.matrix(n + 1, n + 1), mp.matrix(n + 1, 1)
    for i, x in enumerate(points):
        for j in range(n):
            matrix[i, j] = x**j
        matrix[i, n] = (-1) ** i / weight(x)
        right[i] = target(x)
    solution = mp.lu_solve(matrix, right)
    return [solution[j] for j in range(n)], abs(solution[n])


def extrema(error, grid, count):
    """The `count` greatest extrema of alternating signs of a sampled function."""
    found = []

    def append(x, e):
        if not found or (e > 0) != (found[-1][1] > 0):
            found.append((x, e))
        elif abs(e) > abs(found[-1][1]):
            found[-1] = (x, e)

    for x, e in zip(grid, error):
        append(x, e)
    while len(found) > count:
        least = min(range(len(found)), key=lambda i: abs(found[i][1]))
        if 0 < least < len(found) - 1 and len(found) - count < 2:  # one in the middle takes a neighbour with it
            least = 0 if abs(found[0][1]) < abs(found[-1][1]) else len(found) - 1
        rest, found = found[:least] + found[least + 1:], []
        for x, e in rest:
            append(x, e)
    return [x for x, _ in found]


def remez(target, weight, grid, degree):
    """The minimax coefficients on the grid."""
    values, weights = [target(x) for x in grid], [weight(x) for x in grid]
    points = [grid[round(i * (len(grid) - 1) / (degree + 1))] for i in range(degree + 2)]
    for _ in range(30):
        coefficients, level = solve(points, degree, target, weight)
        error = [w * (mp.polyval(coefficients[::-1], x) - v) for x, v, w in zip(grid, values, weights)]
        if max(abs(e) for e in error) < level * (1 + mpf(10) ** -3):
            break
        points = extrema(error, grid, degree + 2)
        if len(points) < degree + 2:
            sys.exit("error: fewer extrema than coefficients")
    return coefficients


def fit(target, weight, low, high, degree, bits):
    """Coefficients c_0 .. c_degree of `bits` bits, and the greatest weighted error of the rounded polynomial."""
    low, high = mpf(low), mpf(high)
    # An even number of Chebyshev's points: zero, where the weight and what is left to fit have theirs, is none of them.
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (i + mpf(1) / 2) / GRID) for i in range(GRID)]
    fixed = []
    for k in range(degree + 1):
        rest = lambda x: (target(x) - mp.polyval(fixed[::-1] or [0], x)) / x**k
        fixed.append(rounded(remez(rest, lambda x: abs(weight(x) * x**k), grid, degree - k)[0], bits))
    return fixed, max(abs(weight(x) * (mp.polyval(fixed[::-1], x) - target(x))) for x in grid)


def parts(value, *bits):
    """The value as a sum of numbers of so many bits, the greatest first."""
    result = []
    for width in bits:
        result.append(rounded(value, width))
        value -= result[-1]
    return result


def exp_range():
    """The least f32 with e^x >= 2^-126, and the greatest whose e^x rounds to less than 2^128."""
    ends = (-126 * mp.ln2, mp.log((2 - mpf(2) ** -24) * mpf(2) ** 127))
    return [mp.sign(x) * mp.floor(abs(x) * 2**17) / 2**17 for x in ends]  # toward zero; ulps of 2^-17


def series(coefficient, first):
    """x -> sum over k >= 0 of coefficient(first + k) x^k, to the precision in use."""
    table = [coefficient(first + k) for k in range(160)]
    return lambda x: mp.polyval(table[::-1], x)


def polynomials():
    """Rows of the header: (name, bits, numbers, comment, error)."""
    wider = 1 + mpf(2) ** -12  # reductions round, and leave their interval by a little
    half_ln2 = mp.ln2 / 2 * wider
    exponential = (series(lambda k: 1 / mp.factorial(k), 2), lambda r: r**2 / mp.exp(r), -half_ln2, half_ln2)
    yield row("kExpF32", 24, 4, *exponential, "(e^r - 1 - r) / r^2, |r| <= ln 2 / 2")
    yield row("kLogF32", 24, 8, lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3, lambda f: f**3 / mp.log1p(f),
              1 / mp.sqrt(2) - 1, mp.sqrt(2) - 1, "(log(1 + f) - f + f^2 / 2) / f^3, sqrt 1/2 <= 1 + f <= sqrt 2")
    yield row("kTanhF32", 24, 5, lambda z: (mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
              lambda z: z * mp.sqrt(z) / mp.tanh(mp.sqrt(z)), 0, 0.3125, "(tanh x - x) / x^3 in z = x^2 <= 0.3125")
    yield row("kExpF64", 53, 10, *exponential, "(e^r - 1 - r) / r^2, |r| <= ln 2 / 2")
    yield row("kLogF64", 53, 7, series(lambda k: mpf(1) / (2 * k + 1), 3), lambda z: z**3,
              0, (mp.sqrt(2) - 1) ** 4 * wider,  # s = f / (2 + f) at 1 + f = sqrt 2
              "(atanh s - s - s^3 / 3 - s^5 / 5) / s^7 in z = s^2, |s| <= (sqrt 2 - 1)^2")
    quarter = (mp.pi / 4 * wider) ** 2
    yield row("kSinF64", 53, 5, series(lambda k: (-1) ** k / mp.factorial(2 * k + 1), 1),
              lambda z: z * mp.sqrt(z) / mp.sin(mp.sqrt(z)), 0, quarter,
              "(sin r - r) / r^3 in z = r^2, |r| <= pi / 4")
    yield row("kCosF64", 53, 5, series(lambda k: (-1) ** k / mp.factorial(2 * k), 2),
              lambda z: z**2 / mp.cos(mp.sqrt(z)), 0, quarter,
              "(cos r - 1 + r^2 / 2) / r^4 in z = r^2, |r| <= pi / 4")


def row(name, bits, degree, target, weight, low, high, comment):
    numbers, error = fit(target, weight, low, high, degree, bits)
    return name, bits, numbers, comment, error


def constants():
    """Rows of the header that are not fitted."""
    ln2, third, fifth = +mp.ln2, mpf(1) / 3, mpf(1) / 5
    for name, bits, numbers, comment in (
        ("kExpF32Range", 24, exp_range(), "Where e^x is a normal number of f32: from 2^-126 on, below what rounds to 2^128"),
        ("kLn2F32", 24, parts(ln2, 16, 24), "ln 2 in two parts; the first times an integer below 2^8 is exact"),
        ("kLn2F64", 53, parts(ln2, 42, 42, 53),
         "ln 2 in three parts; the first two times an integer below 2^11 are exact"),
        ("kHalfPiF64", 53, parts(mp.pi / 2, 53, 53, 53), "pi / 2 in three parts"),
        ("kInverseLn2F32", 24, parts(1 / ln2, 24), "1 / ln 2"),
        ("kInverseLn2F64", 53, parts(1 / ln2, 53, 53), "1 / ln 2 in two parts"),
        ("kInverseHalfPiF64", 53, parts(2 / mp.pi, 53), "2 / pi"),
        ("kThirdF64", 53, parts(third, 53, 53), "1 / 3 in two parts"),
        ("kFifthF64", 53, parts(fifth, 53, 53), "1 / 5 in two parts"),
    ):
        yield name, bits, numbers, comment, None


def header(rows):
    lines = ["#pragma once",
             "// The numbers of core/functions, the lowest power first. Written by scripts/fit_functions; docs/functions.md says",
             "// where each of them stands.", "",
             "#include <array>", "#include <bit>", "#include <cstdint>", "", "namespace tessera::functions {", "",
             "constexpr float kInfinityF32 = std::bit_cast<float>(0x7f800000u), kNanF32 = std::bit_cast<float>(0x7fc00000u);",
             "constexpr double kInfinityF64 = std::bit_cast<double>(0x7ff0000000000000u),",
             "                 kNanF64 = std::bit_cast<double>(0x7ff8000000000000u);", ""]
    for name, bits, numbers, comment, error in rows:
        kind, suffix = ("float", "f") if bits == 24 else ("double", "")
        bound = "" if error is None else f"; relative error of the result 2^{float(mp.log(error, 2)):.1f}"
        lines.append(f"/// {comment}{bound}.")
        lines.append(f"constexpr std::array<{kind}, {len(numbers)}> {name} = {{")
        lines += [f"    {hexadecimal(x, bits)}{suffix}," for x in numbers]
        lines[-1] = lines[-1][:-1] + "};"
        lines.append("")
    return "\n".join(lines + ["}  // namespace tessera::functions", ""])


def numbers_of(text):
    return re.findall(r"-?0x[0-9a-f.]+p[+-][0-9]+", text)


def check(path, page, text):
    with open(path) as file:
        if numbers_of(file.read()) != numbers_of(text):
            sys.exit(f"error: {path} holds other numbers than were fitted\n  scripts/fit_functions rewrites it")
    with open(page) as file:
        missing = sorted(set(numbers_of(text)) - set(numbers_of(file.read())))
    if missing:
        sys.exit(f"error: {page} has not these numbers: {', '.join(missing)}\n  bring them over from {path}")


def main(path, page, *options):
    rows = [*polynomials(), *constants()]
    for name, _, _, comment, error in rows:
        if error is not None:
            print(f"{name:10} 2^{float(mp.log(error, 2)):.2f}  {comment}")
    text = header(rows)
    if "--check" in options:
        check(path, page, text)
    else:
        with open(path, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
