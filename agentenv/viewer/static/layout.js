// A tree's columns made ready to draw: children, depths, which nodes are folded, and where each visible node lies.

import { hierarchy, tree as tidy } from "d3-hierarchy";

export const CARD = { width: 196, height: 54 };
const COLUMN = CARD.width + 48;
const ROW = CARD.height + 14;
const FAR = 5 * ROW;
const MANY = 160; // more visible nodes than these open folded

export function prepare(columns) {
  const size = columns.parents.length;
  const children = Array.from({ length: size }, () => []);
  const depths = new Int32Array(size);
  const below = new Int32Array(size).fill(1);
  for (let i = 1; i < size; i++) {
    children[columns.parents[i]].push(i);
    depths[i] = depths[columns.parents[i]] + 1;
  }
  for (let i = size - 1; i > 0; i--) below[columns.parents[i]] += below[i];
  const forks = new Map(); // by node: what went on from there
  const byChild = new Map();
  for (const fork of columns.forks) {
    if (!forks.has(fork.node)) forks.set(fork.node, []);
    forks.get(fork.node).push(fork);
    byChild.set(fork.child, fork);
  }
  const credits = new Map(Object.entries(columns.credit));
  return { ...columns, size, children, depths, below, forksAt: forks, forkInto: byChild, credits, folded: new Set(), guide: [0], places: null };
}

export function path(tree, node) {
  const found = [node];
  while (node > 0) found.push((node = tree.parents[node]));
  return found.reverse();
}

/** From a node to the end of the rollout that first came through it. */
export function onward(tree, node) {
  const found = [];
  let next = node;
  while (next !== undefined) {
    found.push(next);
    const rollout = tree.rollouts[next];
    next = tree.children[next].find((child) => tree.rollouts[child] === rollout) ?? tree.children[next][0];
  }
  return found;
}

export function meeting(tree, a, b) {
  const other = new Set(path(tree, b));
  return path(tree, a).filter((node) => other.has(node)).at(-1);
}

/** What a person should see first: where a fork led to a success, else a success, else the end of the longest. */
export function interesting(tree) {
  let best = 0;
  let score = -1;
  for (let i = 1; i < tree.size; i++) {
    if (tree.children[i].length) continue;
    const value = (tree.success[i] ? 2e6 : 0) + (tree.forksAt.size && tree.forkInto.size && hasFork(tree, i) ? 1e6 : 0) + tree.depths[i];
    if (value > score) [best, score] = [i, value];
  }
  return path(tree, best).findLast((node) => tree.forkInto.has(node)) ?? best;
}

function hasFork(tree, leaf) {
  return path(tree, leaf).some((node) => tree.forkInto.has(node));
}

/** Folds everything but the path to a node, where there is too much to see at once. */
export function open(tree, node, { force = false } = {}) {
  tree.folded.clear();
  tree.guide = path(tree, node);
  if (tree.size > MANY || force) foldBeside(tree, node);
  arrange(tree);
}

function foldBeside(tree, node) {
  const kept = new Set(path(tree, node));
  for (let i = 0; i < tree.size; i++) {
    if (tree.children[i].length && !kept.has(i)) tree.folded.add(i);
  }
}

export function reveal(tree, node) {
  let changed = false;
  for (const above of path(tree, node).slice(0, -1)) changed = tree.folded.delete(above) || changed;
  if (changed || !tree.places) arrange(tree);
}

export function toggle(tree, node) {
  if (!tree.children[node].length) return false;
  if (!tree.folded.delete(node)) tree.folded.add(node);
  else if (tree.below[node] > MANY) for (const child of tree.children[node]) if (tree.children[child].length) tree.folded.add(child);
  arrange(tree);
  return true;
}

export function arrange(tree) {
  const shown = (node) => (tree.folded.has(node) ? null : tree.children[node]);
  const root = tidy().nodeSize([ROW, COLUMN]).separation(() => 1)(hierarchy(0, shown));
  const places = { x: new Float64Array(tree.size), y: new Float64Array(tree.size), seen: new Uint8Array(tree.size), order: [], levels: [] };
  const box = { left: 0, top: Infinity, right: 0, bottom: -Infinity };
  root.each((place) => {
    const node = place.data;
    places.x[node] = place.y;
    places.y[node] = place.x;
    places.seen[node] = 1;
    places.order.push(node);
    (places.levels[place.depth] ??= []).push(node);
    box.right = Math.max(box.right, place.y + CARD.width);
    box.top = Math.min(box.top, place.x - CARD.height / 2);
    box.bottom = Math.max(box.bottom, place.x + CARD.height / 2);
  });
  alignStem(tree, places);
  for (const level of places.levels) level.sort((a, b) => places.y[a] - places.y[b]);
  tree.places = { ...places, box };
}

/** Where a tree is so wide that its start would be far from the way that is shown, the start and all up to the first fork stand beside it. */
function alignStem(tree, places) {
  const fork = tree.guide.findIndex((node) => tree.children[node].length > 1);
  const next = tree.guide[fork + 1];
  if (fork < 0 || next === undefined || !places.seen[next] || Math.abs(places.y[next] - places.y[0]) < FAR) return;
  for (const node of tree.guide.slice(0, fork + 1)) places.y[node] = places.y[next];
}

/** The visible node at a point of the drawing, if any. */
export function nodeAt(tree, x, y) {
  const level = tree.places.levels[Math.floor(x / COLUMN)];
  if (!level || x - Math.floor(x / COLUMN) * COLUMN > CARD.width + 26) return null;
  let [low, high] = [0, level.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tree.places.y[level[middle]] + ROW / 2 < y) low = middle + 1;
    else high = middle;
  }
  const node = level[low];
  return Math.abs(tree.places.y[node] - y) <= CARD.height / 2 ? node : null;
}

export function beside(tree, node, step) {
  const level = tree.places.levels[tree.depths[node]];
  return level[level.indexOf(node) + step];
}
