// Learning curves: what a run logged, the measures that matter first, and what it was made with.

import { lines } from "viewer/charts";
import { $, el, replace } from "viewer/dom";
import { state } from "viewer/state";

const FIRST = [
  ["Success", [["success", "training episodes", "even"], ["eval_success", "held-out tasks", "good"]], { least: 0, most: 1 }],
  ["Return", [["reward", "training episodes", "good"]], {}],
  ["Continuations' success", [["continuation/success", "continuations", "fork"]], { least: 0, most: 1 }],
  ["Steps of an episode", [["episode/steps", "steps", "good"]], { least: 0 }],
  ["Trees whose episodes all return the same", [["frac_reward_zero_std", "share", "bad"]], { least: 0, most: 1 }],
  ["Spread of the advantages", [["credit/std", "standard deviation", "good"]], { least: 0 }],
  ["Prediction of success", [["brier", "Brier score", "bad"], ["calibration_error", "calibration error", "fork"]], { least: 0 }],
];

export function show() {
  const { metrics, config } = state.overview;
  const known = new Set(FIRST.flatMap(([, names]) => names.map(([name]) => name)));
  const names = [...new Set(metrics.flatMap(Object.keys))].filter((name) => name !== "step" && name !== "epoch" && !known.has(name));
  const first = FIRST.map(([title, series, limits]) => chart(title, series, limits)).filter(Boolean);
  const others = names.sort().map((name) => chart(name, [[name, name, "good"]], {})).filter(Boolean);
  const facts = Object.entries(config).filter(([, value]) => value !== null && value !== "");
  replace($("#curves"),
    !metrics.length && el("p", { class: "note" }, "No metrics: this is no run folder of agentenv train."),
    el("div", { class: "charts" }, first),
    others.length > 0 && el("details", {}, el("summary", {}, `${others.length} more measures`), el("div", { class: "charts" }, others)),
    facts.length > 0 && el("details", {}, el("summary", {}, "Settings"), el("dl", { class: "facts" }, facts.map(([name, value]) =>
      [el("dt", {}, name), el("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))]))));
}

function chart(title, series, limits) {
  const found = series.map(([name, label, tone]) => ({
    name: label, tone, dots: name.startsWith("eval"),
    points: state.overview.metrics.filter((row) => typeof row[name] === "number").map((row) => [row.step, row[name]]),
  }));
  return lines(title, found.filter((line) => line.points.length), limits);
}
