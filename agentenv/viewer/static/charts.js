// Small charts, as SVG: they print, and they follow the colors of the page.

import { el, number, svg } from "viewer/dom";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [360, 190, 44, 26, 12, 12];

/** A chart of lines: series are {name, tone, points: [[x, y], ...], dots}. */
export function lines(title, series, { least, most } = {}) {
  const points = series.flatMap((line) => line.points);
  if (!points.length) return null;
  const [x0, x1] = widened(range(points.map(([x]) => x)));
  const [low, high] = range(points.map(([, y]) => y));
  const [y0, y1] = widened([Math.min(low, least ?? low), Math.max(high, most ?? high)]);
  const px = (x) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - ((y - y0) / (y1 - y0)) * (HEIGHT - BOTTOM - TOP);
  const drawn = series.map((line) => [
    svg("polyline", { class: `curve ${line.tone}`, points: line.points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" ") }),
    (line.dots || line.points.length === 1) && line.points.map(([x, y]) => svg("circle", { class: `dot ${line.tone}`, cx: px(x), cy: py(y), r: 3.2 },
      svg("title", {}, `step ${x}: ${line.name} ${number(y)}`))),
  ]);
  const note = svg("text", { class: "reading", x: WIDTH - RIGHT, y: TOP + 2, "text-anchor": "end" });
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told(title, series) },
    axes(y0, y1, py, x0, x1, px), drawn, note);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = x0 + ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * (x1 - x0);
    const near = (line) => line.points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
    note.textContent = `step ${near(series[0])[0]}: ${series.map((line) => number(near(line)[1])).join(" | ")}`;
  });
  return el("figure", { class: "chart" },
    el("figcaption", {}, title, series.length > 1 && series.map((line) => el("span", { class: `key ${line.tone}` }, line.name))), chart);
}

function told(title, series) {
  return `${title}: ${series.map((line) => `${line.name} from ${number(line.points[0][1])} to ${number(line.points.at(-1)[1])}`).join("; ")}`;
}

function axes(y0, y1, py, x0, x1, px) {
  const rows = ticks(y0, y1, 4).map((y) => [
    svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: py(y), y2: py(y) }),
    svg("text", { x: LEFT - 6, y: py(y) + 3.5, "text-anchor": "end" }, brief(y)),
  ]);
  const columns = ticks(x0, x1, 5).map((x) => svg("text", { x: px(x), y: HEIGHT - 9, "text-anchor": "middle" }, brief(x)));
  return [rows, columns];
}

function brief(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(0) : String(Number(value.toPrecision(3)));
}

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((value) => value >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}

const range = (values) => values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
const widened = ([low, high]) => (high > low ? [low, high] : [low - Math.max(0.5, Math.abs(low) * 0.1), high + Math.max(0.5, Math.abs(high) * 0.1)]);
