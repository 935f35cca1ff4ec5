// Predicted success against realized success, in ten bins.

import { $, el, number, replace, svg } from "viewer/dom";
import { state } from "viewer/state";

const SIDE = 420;
const EDGE = 46;

export function show() {
  const found = state.overview.calibration;
  if (!found) return replace($("#calibration"), el("p", { class: "note" }, "Nothing was predicted: no tree has a step below its start."));
  const scores = [["Brier score", found.brier], ["Calibration error", found.error], ["AUROC", found.auroc], ["Outcomes", Math.round(found.count)]];
  replace($("#calibration"),
    el("figure", { class: "chart square" }, el("figcaption", {}, "Success predicted and realized"), plot(found.bins)),
    el("div", {},
      el("dl", { class: "cells" }, scores.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, number(value))))),
      el("p", { class: "note" }, "Each disk holds the prefixes with predictions in one tenth; its size is the number of trajectories behind them. On the line, as many succeed as were predicted to."),
      el("p", { class: "note" }, "Every tree is predicted by TRACE's text predictor, which has learned from the trees before it alone.")));
}

function plot(bins) {
  const place = (share) => EDGE + share * (SIDE - EDGE - 14);
  const [px, py] = [place, (share) => SIDE - place(share)];
  const most = Math.max(...bins.map((bin) => bin.count));
  const grid = [0, 0.25, 0.5, 0.75, 1].map((share) => [
    svg("line", { class: "grid", x1: px(0), x2: px(1), y1: py(share), y2: py(share) }),
    svg("text", { x: EDGE - 8, y: py(share) + 4, "text-anchor": "end" }, String(share)),
    svg("text", { x: px(share), y: SIDE - EDGE + 20, "text-anchor": "middle" }, String(share)),
  ]);
  const disks = bins.map((bin) => [
    svg("line", { class: "gap", x1: px(bin.predicted), x2: px(bin.predicted), y1: py(bin.predicted), y2: py(bin.realized) }),
    svg("circle", { class: "disk", cx: px(bin.predicted), cy: py(bin.realized), r: 4 + 14 * Math.sqrt(bin.count / most) },
      svg("title", {}, `predicted ${number(bin.predicted)}, realized ${number(bin.realized)}, ${Math.round(bin.count)} trajectories`)),
  ]);
  const told = bins.map((bin) => `predicted ${number(bin.predicted, 2)}, realized ${number(bin.realized, 2)}`).join("; ");
  return svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", "aria-label": `Calibration: ${told}` },
    grid, svg("line", { class: "ideal", x1: px(0), y1: py(0), x2: px(1), y2: py(1) }), disks,
    svg("text", { x: px(0.5), y: SIDE - 6, "text-anchor": "middle" }, "predicted"),
    svg("text", { x: 0, y: 0, transform: `translate(11 ${py(0.5)}) rotate(-90)`, "text-anchor": "middle" }, "realized"));
}
