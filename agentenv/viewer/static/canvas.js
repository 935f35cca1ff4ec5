// The tree on a canvas: what is in sight is drawn, in as much detail as its size allows.

import { LEAST, paintCard } from "viewer/cards";
import { bucket, buckets, colors, ofBucket, readColors, scaleOf } from "viewer/colors";
import { $ } from "viewer/dom";
import { CARD, nodeAt, path } from "viewer/layout";
import * as minimap from "viewer/minimap";
import { emit, shownCredit, state } from "viewer/state";

const canvas = $("#stage > canvas");
const context = canvas.getContext("2d");
const view = { x: 40, y: 0, k: 1 };
let waiting = false;
let motion = 0;
let scale = 0; // of the colors
let inks = new Map();

export const viewport = view;
export const size = () => ({ width: canvas.clientWidth, height: canvas.clientHeight });

export function refresh() {
  readColors();
  inks = new Map(buckets.map((k) => [k, ofBucket(k)]));
  scale = scaleOf(shownCredit());
  minimap.forget();
  redraw();
}

export function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}

function draw() {
  const { width, height } = size();
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  paint(context, { ...view, width, height, ratio });
  minimap.show(state.tree, view, { width, height });
  if (state.tree && canvas.dataset.drawn !== state.id) {
    canvas.dataset.drawn = state.id; // for whoever waits for the first drawing
    performance.mark("drawn");
  }
}

/** Paints the tree; `frame` has the shift x and y, the zoom k, the size in pixels and the pixel ratio. */
export function paint(to, frame) {
  to.setTransform(frame.ratio, 0, 0, frame.ratio, 0, 0);
  to.clearRect(0, 0, frame.width, frame.height);
  const tree = state.tree;
  if (!tree?.places) return;
  to.translate(frame.x, frame.y);
  to.scale(frame.k, frame.k);
  const sight = {
    left: -frame.x / frame.k - 40,
    top: -frame.y / frame.k - 40,
    right: (frame.width - frame.x) / frame.k + 40,
    bottom: (frame.height - frame.y) / frame.k + 40,
  };
  const chosen = new Set(path(tree, state.node));
  paintEdges(to, tree, sight, frame.k, chosen);
  const visible = tree.places.order.filter((node) => inSight(tree, node, sight));
  const tones = (node) => inks.get(bucket(shownCredit().A?.[node], scale));
  if (frame.k >= LEAST) for (const node of visible) paintCard(to, tree, node, { zoom: frame.k, chosen, tones });
  else paintBlocks(to, tree, visible, frame.k, chosen);
}

function inSight(tree, node, sight) {
  const [x, y] = [tree.places.x[node], tree.places.y[node]];
  return x < sight.right && x + CARD.width > sight.left && y - CARD.height < sight.bottom && y + CARD.height > sight.top;
}

function paintEdges(to, tree, sight, zoom, chosen) {
  const { A } = shownCredit();
  const groups = new Map();
  for (const node of tree.places.order) {
    if (!node) continue;
    const parent = tree.parents[node];
    const [from, end] = [tree.places.x[parent] + CARD.width, tree.places.x[node]];
    const [y0, y1] = [tree.places.y[parent], tree.places.y[node]];
    if (from > sight.right || end < sight.left || Math.min(y0, y1) > sight.bottom || Math.max(y0, y1) < sight.top) continue;
    const key = bucket(A?.[node], scale) * 4 + (tree.forkInto.has(node) ? 1 : 0) + (chosen.has(node) ? 2 : 0);
    if (!groups.has(key)) groups.set(key, new Path2D());
    const line = groups.get(key);
    const middle = (from + end) / 2;
    line.moveTo(from, y0);
    line.bezierCurveTo(middle, y0, middle, y1, end, y1);
  }
  for (const [key, line] of [...groups].sort((a, b) => (a[0] & 2) - (b[0] & 2))) {
    const [k, fork, onPath] = [Math.floor(key / 4), key & 1, key & 2];
    to.strokeStyle = inks.get(k);
    to.lineWidth = Math.max((1.6 + 0.5 * Math.abs(k)) * (onPath ? 1.7 : 1), 0.9 / zoom);
    to.setLineDash(fork && zoom > 0.2 ? [7, 5] : []);
    to.stroke(line);
  }
  to.setLineDash([]);
}

function paintBlocks(to, tree, nodes, zoom, chosen) {
  const { surface, line, accent, good, bad, muted } = colors();
  const tiny = zoom < 0.12;
  for (const node of nodes) {
    const [x, y] = [tree.places.x[node], tree.places.y[node] - CARD.height / 2];
    to.fillStyle = chosen.has(node) ? accent : tree.success[node] === null ? (tiny ? muted : surface) : tree.success[node] ? good : bad;
    if (tree.ends[node] === 3) to.fillStyle = muted;
    to.fillRect(x, y, CARD.width, CARD.height);
    if (tiny) continue;
    to.strokeStyle = line;
    to.lineWidth = 1 / zoom;
    to.strokeRect(x, y, CARD.width, CARD.height);
  }
  paintRings(to, tree, zoom);
}

function paintRings(to, tree, zoom) {
  for (const [node, color] of [[state.other, colors().other], [state.node, colors().accent]]) {
    if (node === null || !tree.places.seen[node]) continue;
    to.strokeStyle = color;
    to.lineWidth = 2.5 / Math.min(1, zoom);
    to.strokeRect(tree.places.x[node] - 2, tree.places.y[node] - CARD.height / 2 - 2, CARD.width + 4, CARD.height + 4);
  }
}

export function zoomBy(factor, at = { x: size().width / 2, y: size().height / 2 }) {
  const k = Math.max(0.004, Math.min(3, view.k * factor));
  view.x = at.x - ((at.x - view.x) * k) / view.k;
  view.y = at.y - ((at.y - view.y) * k) / view.k;
  view.k = k;
  redraw();
}

/** Puts a place of the drawing in the middle. */
function panTo(x, y) {
  const { width, height } = size();
  Object.assign(view, { x: width / 2 - x * view.k, y: height / 2 - y * view.k });
  redraw();
}

export function panBy(x, y) {
  view.x += x;
  view.y += y;
  redraw();
}

const PLAIN = 0.75; // the zoom at which a tree is read that is too large to be read whole

function whole() {
  const { box } = state.tree.places;
  const { width, height } = size();
  const k = Math.min(1.1, (width - 60) / (box.right - box.left), (height - 90) / (box.bottom - box.top));
  return { k, x: Math.max(30, (width - k * (box.right - box.left)) / 2), y: (height - 30) / 2 - (k * (box.top + box.bottom)) / 2 };
}

export function fitAll() {
  if (state.tree?.places) glide(whole());
}

/**
 * The first sight of a tree: all of it where that can be read; otherwise its start and the way to the node, as far as that can be read,
 * or, where the node was asked for, the node. Returns the node of the way that is in sight.
 */
export function start(node, { asked = false } = {}) {
  const all = whole();
  const { width, height } = size();
  const { x, y } = state.tree.places;
  if (all.k >= LEAST) Object.assign(view, all);
  else if (asked) Object.assign(view, { k: PLAIN, x: Math.min(30, width - 40 - (x[node] + CARD.width) * PLAIN), y: height / 2 - y[node] * PLAIN });
  else {
    const fits = Math.min((width - 60) / (x[node] + CARD.width), (height - 130) / (Math.abs(y[node] - y[0]) + CARD.height));
    const k = fits < LEAST ? PLAIN : Math.min(0.95, fits);
    const inSight = (place) => 30 + (x[place] + CARD.width) * k < width && Math.abs(y[place] - y[0]) * k < height / 2 - 60;
    if (fits < LEAST) node = path(state.tree, node).findLast(inSight) ?? 0;
    Object.assign(view, { k, x: 30, y: (height - 30) / 2 - (k * (y[0] + y[node])) / 2 });
  }
  redraw();
  return node;
}

/** Brings a node into sight, at a size that can be read. */
export function goTo(node, { center = false } = {}) {
  const { width, height } = size();
  const { x, y } = state.tree.places;
  const k = Math.max(view.k, 0.75);
  const place = { x: x[node] * k + view.x, y: y[node] * k + view.y };
  const away = k !== view.k || place.x < 20 || place.x + CARD.width * k > width - 20 || place.y < 70 || place.y > height - 60;
  if (!away && !center) return redraw();
  glide({ k, x: width * 0.45 - (x[node] + CARD.width / 2) * k, y: height / 2 - y[node] * k });
}

function glide(to) {
  cancelAnimationFrame(motion);
  const from = { ...view };
  const began = performance.now();
  const lasts = matchMedia("(prefers-reduced-motion: reduce)").matches || document.hidden ? 0 : 180;
  const move = (now) => {
    const share = lasts ? Math.max(0, Math.min(1, (now - began) / lasts)) : 1;
    const eased = 1 - (1 - share) ** 3;
    for (const name of ["x", "y", "k"]) view[name] = from[name] + (to[name] - from[name]) * eased;
    draw();
    if (share < 1) motion = requestAnimationFrame(move);
  };
  move(began);
}

export function listen() {
  const touches = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    cancelAnimationFrame(motion);
    canvas.setPointerCapture(event.pointerId);
    touches.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = touches.get(event.pointerId);
    if (!before) return hover(event);
    const now = { x: event.offsetX, y: event.offsetY };
    moved += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
    const others = [...touches].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    touches.set(event.pointerId, now);
    if (others.length) pinch(before, now, others[0]);
    else panBy(now.x - before.x, now.y - before.y);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      if (touches.delete(event.pointerId) && name === "pointerup" && moved < 6) press(event);
    });
  }
  canvas.addEventListener("dblclick", (event) => {
    if (under(event) !== null) emit("toggle");
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) panBy(-event.deltaX - (event.shiftKey ? pixels : 0), 0);
    else zoomBy(Math.exp(-pixels * 0.0016), { x: event.offsetX, y: event.offsetY });
  }, { passive: false });
  new ResizeObserver(redraw).observe(canvas);
  minimap.listen((x, y) => panTo(x, y));
}

function pinch(before, now, other) {
  const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
  zoomBy(distance(now, other) / Math.max(1, distance(before, other)), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
}

function under(event) {
  if (!state.tree?.places) return null;
  return nodeAt(state.tree, (event.offsetX - view.x) / view.k, (event.offsetY - view.y) / view.k);
}

function hover(event) {
  const node = under(event);
  canvas.style.cursor = node === null ? "grab" : "pointer";
  canvas.title = node === null ? "" : `${node}: ${state.tree.labels[node]}`;
}

function press(event) {
  const node = under(event);
  if (node === null) return;
  const right = ((event.offsetX - view.x) / view.k - state.tree.places.x[node]) / CARD.width;
  if (event.shiftKey || event.ctrlKey || event.metaKey) state.other = node === state.node ? null : node;
  else state.node = node;
  emit(event.shiftKey || event.ctrlKey || event.metaKey ? "compare" : "node");
  if (right > 1) emit("toggle");
}
