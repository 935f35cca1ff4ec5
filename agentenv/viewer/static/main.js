// Starts the page, and decides what is shown anew when something changes.

import * as calibration from "viewer/calibration";
import * as canvas from "viewer/canvas";
import { colors } from "viewer/colors";
import * as curves from "viewer/curves";
import * as diff from "viewer/diff";
import { $, el, replace } from "viewer/dom";
import * as keys from "viewer/keys";
import * as layout from "viewer/layout";
import * as panel from "viewer/panel";
import * as printing from "viewer/printing";
import { creditKey, emit, on, readAddress, shownCredit, state, writeAddress } from "viewer/state";
import * as store from "viewer/store";
import * as tasks from "viewer/tasks";
import * as terminal from "viewer/terminal";

const LOOK = 1000; // milliseconds between two questions whether the run went on
const narrow = matchMedia("(max-width: 900px)");

function tell(error) {
  $("#problem").hidden = !error;
  $("#problem").textContent = error?.message ?? error ?? "";
}

async function showTree(node) {
  const id = state.id;
  try {
    const columns = await store.tree(id);
    if (state.id !== id) return;
    state.tree = layout.prepare(columns);
    state.other = null;
    await needCredit();
    if (state.id !== id) return;
    state.node = Math.min(node ?? layout.interesting(state.tree), state.tree.size - 1);
    layout.open(state.tree, state.node);
    heading();
    canvas.refresh();
    if (narrow.matches && state.tab === "tasks") show("tree");
    state.node = canvas.start(state.node, { asked: node !== undefined });
    emit("step");
    tasks.fill();
  } catch (error) {
    tell(error);
  }
}

function heading() {
  const row = state.overview.trees.find((entry) => entry.id === state.id);
  replace($("#heading"), el("b", { dir: "auto" }, row.begins || row.task), el("small", {}, `${row.env}  ${row.id}  ${row.nodes} nodes, ${row.successes} of ${row.episodes} episodes succeeded`));
}

async function needCredit() {
  const { tree, id } = state;
  const key = creditKey();
  if (!tree || tree.credits.has(key)) return;
  const found = await store.credit(id, state.credit, state.options);
  if (state.tree === tree) tree.credits.set(key, found);
}

async function showCredit() {
  try {
    await needCredit();
    tell("");
  } catch (error) {
    tell(error);
  }
  canvas.refresh();
  legend();
  emit("step");
}

function legend() {
  const { good, bad, fork } = colors();
  const none = shownCredit().A === undefined;
  replace($("#legend"), none ? "no credit" : ["A ", el("i", { class: "ramp", style: { background: `linear-gradient(90deg, ${bad}, var(--even), ${good})` } }), ` ${creditKey()}`],
    el("span", {}, el("i", { style: { color: fork } }, "◆"), " fork"), el("span", {}, el("i", { style: { color: good } }, "✓"), " success"), el("span", {}, el("i", { style: { color: bad } }, "✕"), " failure"));
}

function show(tab) {
  state.tab = tab;
  const main = $("main");
  main.dataset.tab = tab;
  for (const button of document.querySelectorAll('[role="tab"]')) button.setAttribute("aria-selected", String(button.dataset.tab === tab));
  const whole = ["compare", "curves", "calibration"];
  for (const name of whole) $(`#${name}`).hidden = name !== tab;
  if (tab === "compare") diff.show();
  canvas.redraw();
  tasks.fill();
  writeAddress();
}

function compareSibling() {
  const { tree, node } = state;
  const beside = panel.siblings(tree, node);
  if (beside.length < 2) return tell("This step has no sibling.");
  tell("");
  const apart = (other) => Math.abs((tree.shares[other] ?? 0) - (tree.shares[node] ?? 0)); // the one that went most differently is the first
  const others = beside.filter((other) => other !== node).sort((a, b) => apart(b) - apart(a));
  state.other = others[(others.indexOf(state.other) + 1) % others.length];
  emit("compare");
}

async function play() {
  const { tree, node, id } = state;
  if (!store.live || !tree) return tell("A file cannot play: serve it with `agentenv view`, or copy the command.");
  tell("");
  show("tree");
  const from = tree.ends[node] ? tree.parents[node] : node;
  await terminal.open(id, from).catch(tell);
  canvas.start(from, { asked: true }); // it has less room now
}

function setTheme(name) {
  const root = document.documentElement;
  if (name === "Auto") delete root.dataset.theme;
  else root.dataset.theme = name.toLowerCase();
  $("#theme").textContent = name;
  canvas.refresh();
  legend();
}

const nextTheme = () => setTheme({ Auto: "Light", Light: "Dark", Dark: "Auto" }[$("#theme").textContent]);

async function follow() {
  let known = state.overview.version;
  for (;;) {
    await new Promise((done) => setTimeout(done, LOOK));
    if (document.hidden) continue;
    try {
      const { version } = await store.version();
      $("#live").classList.remove("lost");
      if (version === known) continue;
      state.overview = await store.overview();
      known = state.overview.version;
      await grown();
    } catch {
      $("#live").classList.add("lost");
    }
  }
}

/** After the run went on: the list and the curves anew, and the tree where it grew. */
async function grown() {
  const { trees } = state.overview;
  showOverview();
  const row = trees.find((entry) => entry.id === state.id);
  if (!row) {
    if (trees.length) await start(trees.at(-1).id);
  } else if (state.tree && row.nodes !== state.tree.size) {
    const { folded, guide } = state.tree;
    state.tree = layout.prepare(await store.tree(state.id));
    Object.assign(state.tree, { folded, guide });
    await needCredit();
    layout.arrange(state.tree);
    heading();
    canvas.refresh();
    emit("step");
  }
}

function showOverview() {
  const { title, problems } = state.overview;
  document.title = `${title} - agentenv`;
  $("#title").textContent = title;
  if (problems.length) tell(problems.join("; "));
  tasks.show();
  curves.show();
  calibration.show();
}

async function start(id, node) {
  state.id = id;
  await showTree(node);
}

function chooseFirst(asked) {
  const { trees } = state.overview;
  const wanted = trees.find((row) => row.id === asked.id);
  const mixed = trees.findLast((row) => row.successes > 0 && row.successes < row.episodes && row.forks) ?? trees.findLast((row) => row.successes > 0 && row.successes < row.episodes);
  return wanted ?? mixed ?? trees[0];
}

function offerCredit(asked) {
  const { credit, estimators } = state.overview;
  const names = store.live ? estimators : credit;
  state.credit = names.includes(asked.credit) ? asked.credit : credit[0];
  replace($("#estimator"), names.map((name) => el("option", { value: name, selected: name === state.credit }, name)));
  $("#options").hidden = !store.live;
  $("#estimator").addEventListener("change", (event) => ((state.credit = event.target.value), showCredit()));
  $("#options").addEventListener("change", (event) => ((state.options = event.target.value.trim()), showCredit()));
  $("#credit").addEventListener("submit", (event) => event.preventDefault());
}

function listen() {
  on("tree", () => showTree());
  on("node", () => {
    layout.reveal(state.tree, state.node);
    canvas.goTo(state.node);
    emit("step");
  });
  on("step", () => {
    const { tree, node } = state;
    panel.show();
    if (state.tab === "compare") diff.show();
    $("#say").textContent = panel.spoken(tree, node);
    writeAddress();
  });
  on("toggle", () => layout.toggle(state.tree, state.node) && canvas.redraw());
  on("compare", () => show(state.other === null ? "tree" : "compare"));
  on("sibling", compareSibling);
  on("play", play);
  on("tab", () => show(state.tab));
  for (const button of document.querySelectorAll('[role="tab"]')) button.addEventListener("click", () => show(button.dataset.tab));
  const actions = {
    in: () => canvas.zoomBy(1.3),
    out: () => canvas.zoomBy(1 / 1.3),
    fit: () => canvas.fitAll(),
    path: () => (layout.open(state.tree, state.node, { force: true }), canvas.goTo(state.node, { center: true })),
    open: () => (state.tree.folded.clear(), layout.arrange(state.tree), canvas.goTo(state.node, { center: true })),
    find: () => (show(narrow.matches ? "tasks" : state.tab), $('#tasks input[type="search"]').focus()),
    theme: nextTheme,
  };
  for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", actions[button.dataset.do]);
  $("#theme").addEventListener("click", nextTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (canvas.refresh(), legend()));
  keys.listen(actions);
  canvas.listen();
  printing.listen();
}

async function begin() {
  const asked = readAddress();
  state.overview = await store.overview();
  offerCredit(asked);
  listen();
  canvas.refresh();
  showOverview();
  show(asked.tab ?? "tree");
  const row = chooseFirst(asked);
  if (row) await start(row.id, row.id === asked.id ? asked.node : undefined);
  else show("curves");
  legend();
  document.body.dataset.ready = "true";
  if (store.live) {
    $("#live").hidden = false;
    follow();
  }
}

begin().catch(tell);
