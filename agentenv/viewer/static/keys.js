// The keyboard: everything that the mouse does.

import * as canvas from "viewer/canvas";
import { $, el, replace } from "viewer/dom";
import { beside } from "viewer/layout";
import { emit, state } from "viewer/state";
import * as tasks from "viewer/tasks";

const TABLE = [
  ["← →", "to the step before, to the first step after"],
  ["↑ ↓", "to the steps beside it"],
  ["Enter", "folds or opens what follows"],
  ["f F", "to the next fork, to the one before"],
  ["s", "to the next success"],
  ["d", "compares with the next sibling"],
  ["p", "plays from here, where the page is served"],
  ["+ − 0", "zooms; shows all of it"],
  ["c e", "folds all but the path; opens everything"],
  ["j k", "to the next tree of the list, to the one before"],
  ["1 … 6", "tasks, tree, step, compare, curves, calibration"],
  ["/", "finds a task"],
  ["t", "colors: as the system has them, light, dark"],
  ["?", "these keys"],
];
const TABS = ["tasks", "tree", "step", "compare", "curves", "calibration"];

export function listen(actions) {
  replace($("#keys"), el("h2", {}, "Keys"), el("dl", { class: "facts" }, TABLE.map(([key, does]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, does)])),
    el("form", { method: "dialog" }, el("button", {}, "Close")));
  $("#help").addEventListener("click", () => $("#keys").showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("#keys").open) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.target.closest("button, summary, a") && ["Enter", " "].includes(event.key)) return;
    const act = named(event.key, actions);
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function named(key, actions) {
  const { tree, node } = state;
  const to = (next) => next !== undefined && next !== null && next >= 0 && ((state.node = next), emit("node"));
  const walks = tree && {
    ArrowLeft: () => to(tree.parents[node]),
    ArrowRight: () => (tree.folded.has(node) ? emit("toggle") : to(tree.children[node][0])),
    ArrowUp: () => to(beside(tree, node, -1)),
    ArrowDown: () => to(beside(tree, node, 1)),
    Home: () => to(0),
    Enter: () => emit("toggle"),
    " ": () => emit("toggle"),
    f: () => to(after([...tree.forksAt.keys()].sort((a, b) => a - b), node)),
    F: () => to(after([...tree.forksAt.keys()].sort((a, b) => b - a), node, -1)),
    s: () => to(after(tree.success.flatMap((won, i) => (won ? [i] : [])), node)),
    d: () => emit("sibling"),
    p: () => emit("play"),
    c: actions.path,
    e: actions.open,
  };
  const always = {
    "+": () => canvas.zoomBy(1.3), "=": () => canvas.zoomBy(1.3), "-": () => canvas.zoomBy(1 / 1.3), 0: () => canvas.fitAll(),
    j: () => tasks.walk(1), k: () => tasks.walk(-1), "/": () => actions.find(), t: actions.theme, "?": () => $("#keys").showModal(),
  };
  const tab = TABS[Number(key) - 1];
  return walks?.[key] ?? always[key] ?? (tab && (() => ((state.tab = tab), emit("tab"))));
}

/** The first of ordered places after one; the first of all where there is none. */
function after(places, place, sign = 1) {
  return places.find((other) => sign * other > sign * place) ?? places[0];
}
