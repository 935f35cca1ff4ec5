// A step as a card. Its words keep a size that can be read: the smaller the drawing, the fewer of them a card holds.

import { colors } from "viewer/colors";
import { signed } from "viewer/dom";
import { CARD } from "viewer/layout";
import { shownCredit, state } from "viewer/state";

export const LEAST = 0.36; // the zoom below which a card cannot hold words
const LEGIBLE = 10; // pixels on the screen
const SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const MONO = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';

/** Paints a node; `zoom` is the drawing's, `chosen` holds the nodes of the path, `tones(node)` is the color of its credit. */
export function paintCard(to, tree, node, { zoom, chosen, tones }) {
  const { surface, line, text, muted, accent, other, fork } = colors();
  const [x, y] = [tree.places.x[node], tree.places.y[node] - CARD.height / 2];
  const grow = Math.max(1, Math.ceil((8 * LEGIBLE) / (12 * zoom)) / 8); // in steps, so that measured words are found again
  const ring = node === state.node ? accent : node === state.other ? other : null;
  to.beginPath();
  to.roundRect(x, y, CARD.width, CARD.height, 9);
  to.fillStyle = surface;
  to.fill();
  to.strokeStyle = ring ?? (chosen.has(node) ? accent : line);
  to.lineWidth = (ring ? 3 : 1) * Math.min(grow, 1.6);
  to.stroke();
  if (node) {
    to.beginPath();
    to.roundRect(x + 5, y + 8, 4 * Math.min(grow, 1.6), CARD.height - 16, 2);
    to.fillStyle = tones(node);
    to.fill();
  }
  to.textBaseline = "alphabetic";
  const left = x + 13 + 4 * Math.min(grow, 1.6);
  const room = CARD.width - (left - x) - 8;
  const title = room - (tree.ends[node] ? 20 * Math.min(grow, 1.6) : 0);
  if (grow <= 1.125) {
    write(to, tree.labels[node], left, y + 19, { weight: 600, pixels: 12 * grow, color: text, room: title });
    write(to, tree.answers[node], left, y + 33, { pixels: 11 * grow, color: muted, room });
    write(to, numbers(tree, node), left, y + 47, { pixels: 10.5 * grow, color: muted, room });
  } else {
    write(to, tree.labels[node], left, y + 24, { weight: 600, pixels: 12 * Math.min(grow, 2), color: text, room: title });
    write(to, brief(tree, node), left, y + 48, { pixels: 11.5 * Math.min(grow, 2), color: muted, room });
  }
  const size = Math.min(grow, 1.6);
  if (tree.ends[node]) paintEnd(to, tree, node, { x: x + CARD.width - 14 * size, y: y + 14 * size, size });
  if (tree.folded.has(node)) paintBadge(to, `+${tree.below[node] - 1}`, { x: x + CARD.width, y: y + CARD.height / 2, size, color: muted });
  if (tree.forksAt.has(node)) paintDiamond(to, { x: x + CARD.width + (tree.folded.has(node) ? 42 * size : 12), y: y + CARD.height / 2, size, color: fork });
}

function numbers(tree, node) {
  const credit = shownCredit();
  if (!node) return `success ${short(tree.shares[0])}   ${tree.leaves[0]} episodes`;
  if (credit.A === undefined) return `r ${signed(tree.rewards[node])}   N ${tree.leaves[node]}`;
  const reward = tree.rewards[node] ? `r ${signed(tree.rewards[node])}  ` : "";
  return `A ${signed(credit.A[node])}  Q ${short(credit.Q[node])}  ${reward}N ${credit.N[node]}`;
}

/** The one number of a small card. */
function brief(tree, node) {
  const credit = shownCredit();
  if (!node) return `${tree.leaves[0]} episodes`;
  return credit.A === undefined ? `r ${signed(tree.rewards[node])}` : `A ${signed(credit.A[node])}`;
}

const short = (value) => (value === null || value === undefined ? "–" : value.toFixed(2).replace("-", "−"));

function write(to, words, x, y, { weight = 400, pixels, color, room }) {
  if (!words) return;
  to.font = `${weight} ${pixels}px ${weight > 500 ? MONO : SANS}`;
  to.fillStyle = color;
  to.fillText(`\u2068${fit(to, words, room)}\u2069`, x, y); // isolated: what is written from right to left ends on the left
}

const fitted = new Map();

/** As many of the words as there is room for; no character is cut in two. */
function fit(to, words, room) {
  const key = `${to.font}|${room}|${words}`;
  let found = fitted.get(key);
  if (found !== undefined) return found;
  found = words;
  if (to.measureText(words).width > room) {
    const parts = [...words.slice(0, 400)];
    let [low, high] = [0, parts.length];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (to.measureText(`${parts.slice(0, middle).join("")}…`).width <= room) low = middle;
      else high = middle - 1;
    }
    found = `${parts.slice(0, low).join("")}…`;
  }
  if (fitted.size > 30000) fitted.clear();
  fitted.set(key, found);
  return found;
}

function paintEnd(to, tree, node, { x, y, size }) {
  const { good, bad, muted, surface, warn } = colors();
  const [color, sign] = tree.ends[node] === 3 ? [muted, "!"] : tree.success[node] ? [good, "✓"] : [tree.ends[node] === 2 ? warn : bad, tree.ends[node] === 2 ? "…" : "✕"];
  to.beginPath();
  to.arc(x, y, 8 * size, 0, 2 * Math.PI);
  to.fillStyle = color;
  to.fill();
  to.font = `700 ${10 * size}px ${SANS}`;
  to.fillStyle = surface;
  to.textAlign = "center";
  to.fillText(sign, x, y + 3.5 * size);
  to.textAlign = "start";
}

function paintBadge(to, words, { x, y, size, color }) {
  to.font = `600 ${11 * size}px ${SANS}`;
  const width = to.measureText(words).width + 12;
  to.beginPath();
  to.roundRect(x - 4, y - 9 * size, width, 18 * size, 9 * size);
  to.fillStyle = color;
  to.fill();
  to.fillStyle = colors().surface;
  to.fillText(words, x + 2, y + 4 * size);
}

function paintDiamond(to, { x, y, size, color }) {
  to.beginPath();
  to.moveTo(x, y - 7 * size);
  to.lineTo(x + 7 * size, y);
  to.lineTo(x, y + 7 * size);
  to.lineTo(x - 7 * size, y);
  to.closePath();
  to.fillStyle = color;
  to.fill();
}
