"""Curves with error bars as an SVG file: x on a logarithmic scale. Nothing but the standard library."""
import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 60, 200, 40, 50
COLOURS = ["#0b6e99", "#d9730d", "#4d7c0f", "#9b51e0", "#6b7280"]


def svg_curve(title, x_label, y_label, curves):
    """curves: {name: [(x, mean, deviation), ...]}. The text of the file."""
    points = [p for curve in curves.values() for p in curve]
    low, high = math.log10(min(p[0] for p in points)), math.log10(max(p[0] for p in points))
    floor, ceiling = min(p[1] - p[2] for p in points), max(p[1] + p[2] for p in points)

    def x(value):
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - (value - floor) / (ceiling - floor) * (HEIGHT - TOP - BOTTOM)

    def text(at_x, at_y, words, anchor="middle", more=""):
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}"{more}>{words}</text>'

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#222">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', text((LEFT + WIDTH - RIGHT) / 2, 22, title, more=' font-size="14"'),
             text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label),
             text(16, HEIGHT / 2, y_label, more=f' transform="rotate(-90 16 {HEIGHT / 2:.0f})"')]
    step = 10 ** math.floor(math.log10(ceiling - floor))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (ceiling - floor) / s <= 8)
    for k in range(math.ceil(floor / step), math.floor(ceiling / step) + 1):
        parts += [f'<path d="M{LEFT} {y(k * step):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>', text(LEFT - 6, y(k * step) + 4, f"{k * step:g}", "end")]
    for power in range(math.floor(low), math.ceil(high) + 1):
        for mantissa in (1, 2, 5):
            value = mantissa * 10 ** power
            if low <= math.log10(value) <= high:
                parts += [f'<path d="M{x(value):.1f} {HEIGHT - BOTTOM}v5" stroke="#222"/>', text(x(value), HEIGHT - BOTTOM + 18, f"{value:,}")]
    for i, (name, curve) in enumerate(curves.items()):
        colour, curve = COLOURS[i % len(COLOURS)], sorted(curve)
        parts.append(f'<path d="M{"L".join(f"{x(a):.1f} {y(b):.1f}" for a, b, _ in curve)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<path d="M{x(a):.1f} {y(b - d):.1f}V{y(b + d):.1f}" stroke="{colour}"/><circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" fill="{colour}"/>'
                  for a, b, d in curve]
        parts += [f'<path d="M{WIDTH - RIGHT + 16} {TOP + 20 * i}h22" stroke="{colour}" stroke-width="2"/>',
                  text(WIDTH - RIGHT + 46, TOP + 20 * i + 4, name, "start")]
    return "\n".join(parts + ["</svg>", ""])
