// Two ways on from where they part, step beside step, with what differs marked.

import { $, el, replace, signed } from "viewer/dom";
import { meeting, onward, path } from "viewer/layout";
import { emit, shownCredit, state } from "viewer/state";
import * as store from "viewer/store";
import { textOf } from "viewer/text";

const MOST = 60; // steps shown of each way
const WORDS = 1500; // words of a text that are compared one by one

export async function show() {
  const { tree, node, other, id } = state;
  const box = $("#compare");
  if (!tree || other === null || other === node) {
    replace(box, el("p", { class: "note" }, "Choose two steps: click one, then another with Shift held down; or press d for a sibling."));
    return;
  }
  const fork = meeting(tree, node, other);
  const ways = [node, other].map((end) => wayOn(tree, fork, end));
  const entries = await Promise.all(ways.map((way) => Promise.all(way.slice(0, MOST).map((step) => entryOf(tree, id, step)))));
  if (state.tree !== tree || state.node !== node || state.other !== other) return;
  const rows = Array.from({ length: Math.max(entries[0].length, entries[1].length) }, (_, i) => row(tree, i, ways, entries));
  replace(box,
    el("h2", {}, `Two ways on from node ${fork}`, el("small", {}, ` step ${tree.depths[fork]}: ${tree.labels[fork]}`)),
    el("div", { class: "pair heads" }, ways.map((way, side) => head(tree, way, side))), rows);
}

function wayOn(tree, fork, end) {
  const before = path(tree, end).filter((step) => tree.depths[step] > tree.depths[fork]);
  return [...before, ...onward(tree, end).slice(1)];
}

function head(tree, way, side) {
  const leaf = way.at(-1);
  const result = leaf === undefined ? "ends there" : tree.success[leaf] === null ? "goes on" : tree.success[leaf] ? "success" : "failure";
  return el("p", { class: `outcome ${result === "success" ? "good" : result === "failure" ? "bad" : "even"}` },
    el("b", {}, side ? "B" : "A"), ` node ${way[0] ?? "–"}, ${way.length} ${way.length === 1 ? "step" : "steps"}: ${result}`);
}

async function entryOf(tree, id, node) {
  const first = tree.chunks.filter((start) => start <= node).at(-1);
  return (await store.details(id, first, tree.size)).nodes[node - first];
}

function row(tree, i, ways, entries) {
  const said = entries.map((way) => (way[i] ? [actionText(way[i]), way[i].observation.map((m) => m.text).join("\n")] : null));
  const marked = said[0] && said[1] ? [marks(said[0][0], said[1][0]), marks(said[0][1], said[1][1])] : null;
  return el("div", { class: "pair" }, [0, 1].map((side) => {
    const step = ways[side][i];
    if (!said[side]) return el("div", { class: "side none" });
    const credit = shownCredit().A?.[step];
    return el("div", { class: "side" },
      el("button", { type: "button", class: "link", onclick: () => ((state.node = step), (state.tab = "tree"), emit("tab"), emit("node")) }, `node ${step}`),
      el("small", { class: credit > 0 ? "good" : credit < 0 ? "bad" : "" }, ` A ${signed(credit)}  r ${signed(tree.rewards[step])}`),
      text(said[side][0], marked?.[0][side], "action"), text(said[side][1], marked?.[1][side], ""));
  }));
}

function actionText(entry) {
  return [entry.content, ...entry.calls.map((call) => `${call.name} ${call.arguments}`)].filter(Boolean).join("\n") || "(nothing)";
}

function text(words, parts, name) {
  if (!parts) return textOf(words, name);
  return el("div", { class: `text ${name}` }, el("pre", {}, parts.map(([piece, same]) => (same ? piece : el("mark", {}, piece)))));
}

/** Marks what two texts do not share, as [[piece, shared], ...] for each; nothing where they are too long. */
export function marks(a, b) {
  const [left, right] = [a, b].map((words) => words.match(/\s+|\w+|[^\w\s]/gu) ?? []);
  if (left.length > WORDS || right.length > WORDS) return a === b ? [[[a, true]], [[b, true]]] : null;
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start++;
  let end = 0;
  while (end < left.length - start && end < right.length - start && left.at(-1 - end) === right.at(-1 - end)) end++;
  const [inner, other] = [left.slice(start, left.length - end), right.slice(start, right.length - end)];
  const shared = common(inner, other);
  const around = (words, middle) => joined([...words.slice(0, start).map((w) => [w, true]), ...middle, ...words.slice(words.length - end).map((w) => [w, true])]);
  return [around(left, inner.map((word, i) => [word, shared[0].has(i)])), around(right, other.map((word, i) => [word, shared[1].has(i)]))];
}

/** The longest common subsequence, as the places of its words in both. */
function common(a, b) {
  const wide = b.length + 1;
  const table = new Uint16Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i * wide + j] = a[i] === b[j] ? table[(i + 1) * wide + j + 1] + 1 : Math.max(table[(i + 1) * wide + j], table[i * wide + j + 1]);
    }
  }
  const found = [new Set(), new Set()];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) {
      found[0].add(i++);
      found[1].add(j++);
    } else if (table[(i + 1) * wide + j] >= table[i * wide + j + 1]) i++;
    else j++;
  }
  return found;
}

function joined(pieces) {
  const found = [];
  for (const [i, [word, shared]] of pieces.entries()) {
    const same = shared && !(!word.trim() && i && found.at(-1)[1] === false && pieces[i + 1]?.[1] === false); // no gaps in a mark
    if (found.length && found.at(-1)[1] === same) found.at(-1)[0] += word;
    else found.push([word, same]);
  }
  return found;
}
