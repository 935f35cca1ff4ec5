// The list of trees, filtered and sorted; only the rows in sight exist.

import { $, el, percent, replace } from "viewer/dom";
import { emit, state } from "viewer/state";

const HEIGHT = 68;
const FILTERS = {
  all: ["All", () => true],
  success: ["Success", (row) => row.episodes > 0 && row.successes === row.episodes],
  mixed: ["Mixed", (row) => row.successes > 0 && row.successes < row.episodes],
  failed: ["Failed", (row) => row.successes === 0],
};
const ORDERS = {
  run: ["in order", null],
  longest: ["longest first", (a, b) => b.steps - a.steps],
  largest: ["most nodes first", (a, b) => b.nodes - a.nodes],
  undecided: ["most undecided first", (a, b) => spread(b) - spread(a)],
};
const chosen = { filter: "all", order: "run", words: "", step: "" };
let rows = [];
let list = null;

const spread = (row) => (row.episodes ? (row.successes / row.episodes) * (1 - row.successes / row.episodes) : 0);

export function show() {
  const all = state.overview.trees;
  const counts = Object.fromEntries(Object.entries(FILTERS).map(([name, [, keep]]) => [name, all.filter(keep).length]));
  const steps = [...new Set(all.map((row) => row.step).filter((step) => step !== null))];
  list = el("div", { class: "rows", role: "listbox", tabIndex: 0, "aria-label": "Trees", onscroll: fill, onkeydown: keys });
  replace($("#tasks"),
    el("div", { class: "filters", role: "group", "aria-label": "Filter" }, Object.entries(FILTERS).map(([name, [title]]) =>
      el("button", { type: "button", data: { filter: name }, "aria-pressed": String(name === chosen.filter), onclick: () => set("filter", name) }, title, el("small", {}, ` ${counts[name]}`)))),
    el("div", { class: "filters" },
      el("input", { type: "search", placeholder: "Find (/)", "aria-label": "Find", value: chosen.words, oninput: (event) => change("words", event.target.value) }),
      select("order", Object.entries(ORDERS).map(([name, [title]]) => [name, title])),
      steps.length > 1 && select("step", [["", "all steps"], ...steps.map((step) => [String(step), `step ${step}`])])),
    list);
  change();
}

function select(name, options) {
  return el("select", { "aria-label": name, onchange: (event) => change(name, event.target.value) },
    options.map(([value, title]) => el("option", { value, selected: value === chosen[name] }, title)));
}

function set(name, value) {
  for (const button of document.querySelectorAll("[data-filter]")) button.setAttribute("aria-pressed", String(button.dataset.filter === value));
  change(name, value);
}

function change(name, value) {
  if (name) chosen[name] = value;
  const words = chosen.words.toLowerCase().split(/\s+/).filter(Boolean);
  const told = (row) => `${row.task} ${row.env} ${row.begins} ${row.file}`.toLowerCase();
  rows = state.overview.trees.filter((row) => FILTERS[chosen.filter][1](row) && (chosen.step === "" || String(row.step) === chosen.step) &&
    (!words.length || words.every((word) => told(row).includes(word))));
  if (ORDERS[chosen.order][1]) rows = [...rows].sort(ORDERS[chosen.order][1]);
  if (name) list.scrollTop = 0;
  fill();
}

export function fill() {
  if (!list) return;
  const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 4);
  const last = Math.min(rows.length, first + Math.ceil((list.clientHeight || 800) / HEIGHT) + 8);
  const shown = rows.slice(first, last).map((row, i) => item(row, first + i));
  replace(list, el("div", { style: { height: `${rows.length * HEIGHT}px` } }, shown), !rows.length && el("p", { class: "note" }, "No tree is like this."));
}

function item(row, place) {
  const share = row.episodes ? row.successes / row.episodes : null;
  const tone = share === null ? "broken" : share === 1 ? "good" : share === 0 ? "bad" : "mixed";
  return el("div", {
    class: "row", role: "option", "aria-selected": String(row.id === state.id), style: { top: `${place * HEIGHT}px`, height: `${HEIGHT}px` },
    data: { id: row.id }, onclick: () => choose(row),
  },
  el("span", { class: `share ${tone}`, style: { "--share": share ?? 0 }, title: share === null ? "no episode went through" : `${row.successes} of ${row.episodes} episodes succeeded` }),
  el("span", { class: "begins", dir: "auto" }, row.begins || row.task || "(no question)"),
  el("small", {}, row.step === null ? "" : `step ${row.step} · `, `${percent(share)} of ${row.episodes} · ${row.steps} steps · ${row.nodes} nodes`, row.forks ? ` · ◆${row.forks}` : "", row.broken ? ` · ${row.broken} broken` : ""));
}

function choose(row) {
  state.id = row.id;
  emit("tree");
}

/** Goes to the tree so many rows further down the list. */
export function walk(step) {
  const place = rows.findIndex((row) => row.id === state.id);
  const next = rows[Math.max(0, Math.min(rows.length - 1, place + step))];
  if (!next) return;
  const at = rows.indexOf(next) * HEIGHT;
  if (at < list.scrollTop || at + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = at - list.clientHeight / 2;
  choose(next);
}

function keys(event) {
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -rows.length, End: rows.length }[event.key];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  walk(step);
}
