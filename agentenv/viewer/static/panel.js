// One step: what was done and answered, what it is worth and cost, who went on from here, and how to play from here.

import { $, el, number, percent, replace, signed } from "viewer/dom";
import { path } from "viewer/layout";
import { emit, shownCredit, state } from "viewer/state";
import * as store from "viewer/store";
import { textOf } from "viewer/text";
import { tokensOf } from "viewer/tokens";

const panel = $("#step");
const HINTS = {
  A: "Advantage: the credit of this step",
  Q: "Value of having taken it",
  V: "Value of the state it was taken from",
  N: "Trajectories through it",
};

export async function show() {
  const { tree, node, id } = state;
  if (!tree) return replace(panel);
  const first = tree.chunks.filter((start) => start <= node).at(-1);
  try {
    const part = await store.details(id, first, tree.size);
    if (state.tree !== tree || state.node !== node) return;
    const entry = part.nodes[node - first];
    replace(panel, heading(tree, node, entry), worth(tree, node, entry), said(tree, node, entry, part.texts), more(entry));
    panel.dataset.node = `${id}/${node}`;
  } catch (error) {
    replace(panel, el("p", { class: "note bad" }, error.message));
  }
}

function heading(tree, node, entry) {
  const ends = ["", "The task ended here", "A limit cut it here", "Infrastructure failed here"][tree.ends[node]];
  const outcome = tree.success[node];
  return el("header", {},
    el("h2", {}, node ? `Step ${tree.depths[node]}` : "Start", el("small", {}, ` node ${node}, rollout ${tree.rollouts[node]}${entry.attempt ? `, attempt ${entry.attempt}` : ""}`)),
    ends && el("p", { class: `outcome ${outcome === null ? "even" : outcome ? "good" : "bad"}` }, ends, outcome === null ? "" : outcome ? ": success" : ": failure"),
    el("div", { class: "walk", role: "group", "aria-label": "Go to" },
      go("← before", tree.parents[node] >= 0 ? tree.parents[node] : null), go("next →", tree.children[node][0] ?? null),
      el("button", { type: "button", onclick: () => emit("sibling"), disabled: siblings(tree, node).length < 2, title: "Compare with a sibling (d)" }, "compare")));
}

function go(words, node) {
  return el("button", { type: "button", disabled: node === null, onclick: () => ((state.node = node), emit("node")) }, words);
}

export const siblings = (tree, node) => (node ? tree.children[tree.parents[node]] : []);

function worth(tree, node, entry) {
  const credit = shownCredit();
  const cells = ["A", "Q", "V", "N"].map((name) => {
    const value = credit[name]?.[node];
    const tone = name === "A" && value ? (value > 0 ? "good" : "bad") : "";
    return el("div", { title: HINTS[name] }, el("dt", {}, name), el("dd", { class: tone }, name === "A" ? signed(value, 3) : number(value)));
  });
  return el("section", { class: "worth" },
    credit.problem && el("p", { class: "note bad" }, credit.problem),
    node > 0 && el("dl", { class: "cells" }, cells),
    rewards(tree, node, entry), prediction(tree, node), forks(tree, node));
}

function rewards(tree, node, entry) {
  if (!node) return null;
  const parts = Object.entries(entry.rewards);
  const total = tree.rewards[node] === null ? "none: infrastructure failed" : signed(tree.rewards[node], 3);
  return el("p", { class: "line" }, el("b", {}, "Reward "), total,
    parts.length > 0 && el("span", { class: "chips" }, parts.map(([name, value]) => el("span", { class: "chip" }, `${name} ${signed(Number(value), 3)}`))));
}

function prediction(tree, node) {
  const [said, real] = [tree.predicted[node], tree.shares[node]];
  if (real === null && said === null) return null;
  const bar = (share, name) => el("span", { class: `bar ${name}`, title: `${name} ${percent(share)}` }, share !== null && el("i", { style: { width: `${100 * share}%` } }));
  return el("div", { class: "bars", "aria-label": "Success" },
    el("b", {}, "Success "), el("span", {}, "predicted"), bar(said, "predicted"), el("span", {}, percent(said)),
    el("span", {}, "realized"), bar(real, "realized"), el("span", { title: "Of the trajectories through it, those of a fork together weighing as much as the one they went on from" }, `${percent(real)} (${tree.leaves[node]})`));
}

function forks(tree, node) {
  const into = tree.forkInto.get(node);
  const here = tree.forksAt.get(node) ?? [];
  const line = (fork, words) => el("p", { class: "line fork" }, el("i", { "aria-hidden": "true" }, "◆ "), words,
    fork.by ? ` Chosen by ${fork.by}${fork.why ? `: ${fork.why}` : ""}.` : " The file does not say who chose it.");
  return [into && line(into, `Rollout ${into.rollout} went on from node ${into.node}.`),
    here.length > 0 && line(here[0], `${here.length === 1 ? "Another rollout" : `${here.length} rollouts`} went on from here (${here.map((fork) => fork.rollout).join(", ")}).`)];
}

function said(tree, node, entry, texts) {
  const parts = [];
  if (entry.reasoning) parts.push(section("Reasoning", textOf(entry.reasoning, "reasoning")));
  if (node) {
    const words = entry.content ? [textOf(entry.content, "action")] : [];
    const calls = entry.calls.map((call) => el("div", { class: "call" }, el("b", {}, call.name), textOf(call.arguments, "arguments")));
    parts.push(section("Action", words, calls, !words.length && !calls.length && el("p", { class: "note" }, "(nothing)")));
    if (entry.mistakes.length) parts.push(section("Mistakes", entry.mistakes.map((text) => el("p", { class: "note bad" }, text))));
  }
  if (entry.failure) parts.push(section("Failure", textOf(entry.failure, "failure")));
  parts.push(section("Observation", entry.observation.map(message), !entry.observation.length && el("p", { class: "note" }, "(nothing)")));
  if (entry.tokens) parts.push(section("Tokens", tokensOf(entry, texts)));
  return parts;
}

function message(entry) {
  const images = (entry.images ?? []).map((url) => (/^data:image\/(png|jpeg|gif|webp);/.test(url) ? el("img", { src: url, alt: "image" }) : el("p", { class: "note" }, url.slice(0, 100))));
  return el("div", { class: "message" }, el("b", { class: "role" }, entry.name ? `${entry.role} ${entry.name}` : entry.role),
    entry.reasoning && textOf(entry.reasoning, "reasoning"), textOf(entry.text), images);
}

function section(title, ...children) {
  return el("section", {}, el("h3", {}, title), ...children);
}

const UNITS = {
  tokens_sampled: "tokens sampled", tokens_read: "tokens read", tokens_cached: "of them cached", agent_seconds: "s agent",
  env_seconds: "s environment", snapshot_seconds: "s snapshot", snapshot_bytes: "bytes of snapshot",
};

function more(entry) {
  const { tree, node } = state;
  const cost = Object.entries(entry.cost).map(([name, value]) => el("span", { class: "chip" }, `${number(value)} ${UNITS[name] ?? name}`));
  const facts = [["finish", entry.finish], ["weights", entry.version], ["state", entry.state], ["action", entry.signature]].filter(([, value]) => value);
  return [
    section("Cost", cost.length ? el("div", { class: "chips" }, cost) : el("p", { class: "note" }, "Nothing was counted.")),
    play(tree, node),
    el("details", {}, el("summary", {}, "Everything else"),
      el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      entry.info && textOf(entry.info), textOf(tree.metadata)),
  ];
}

function play(tree, node) {
  const from = tree.ends[node] ? tree.parents[node] : node;
  const note = tree.ends[node] ? `Node ${node} has ended; from the node before it:` : "Restores this state, and goes on by hand:";
  const here = store.live && el("button", { type: "button", class: "play", title: "Play from here (p)", onclick: () => emit("play") }, "Play in this page");
  return section("Play from here", here, el("p", { class: "note" }, note),
    command(`${tree.commands.play} ${from}`), el("p", { class: "note" }, "With any agent:"), command(`${tree.commands.replay} ${from}`));
}

function command(words) {
  const button = el("button", { type: "button", "aria-label": `Copy: ${words}`, onclick: () => copy(words, button) }, "Copy");
  return el("div", { class: "command" }, el("code", {}, words.split(" ").flatMap((word) => [el("span", {}, word), " "])), button);
}

async function copy(words, button) {
  try {
    await navigator.clipboard.writeText(words);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.previousSibling);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

/** One line of a step, for whoever cannot see the drawing. */
export function spoken(tree, node) {
  const credit = shownCredit();
  const parts = [`Node ${node} of ${tree.size}`, `step ${tree.depths[node]}`, tree.labels[node], `answer ${tree.answers[node] || "none"}`];
  if (node && credit.A) parts.push(`advantage ${signed(credit.A[node])}`);
  if (tree.success[node] !== null) parts.push(tree.success[node] ? "success" : "failure");
  if (tree.children[node].length > 1) parts.push(`${tree.children[node].length} ways on`);
  if (tree.folded.has(node)) parts.push("folded");
  return `${parts.join(", ")}. ${path(tree, node).length - 1} steps from the start.`;
}
