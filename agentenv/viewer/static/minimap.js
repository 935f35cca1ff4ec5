// The whole tree in a corner, with a frame around what is in sight: shown while not all of it is.

import { colors } from "viewer/colors";
import { $ } from "viewer/dom";
import { CARD } from "viewer/layout";

const [WIDTH, HEIGHT, EDGE] = [168, 112, 6];
const LARGEST = 0.2; // times the size of the drawing
const box = $("#map");
const canvas = $("canvas", box);
const frame = $("i", box);
let picture = null; // of the tree: drawn once, while the frame moves

export const forget = () => (picture = null);

/** Shows where in the tree the view is; hidden where all of the tree is in sight. */
export function show(tree, view, size) {
  const whole = tree?.places?.box;
  const all = !whole || (view.x + whole.left * view.k > -CARD.width * view.k / 2 && view.x + whole.right * view.k < size.width + CARD.width * view.k / 2 &&
    view.y + whole.top * view.k > -4 && view.y + whole.bottom * view.k < size.height + 4);
  box.hidden = all;
  if (all) return;
  const ratio = devicePixelRatio || 1;
  if (!picture || picture.places !== tree.places || picture.ratio !== ratio) picture = draw(tree, ratio);
  const { x, y } = picture.place;
  const clamp = (value, most) => Math.max(0, Math.min(value, most));
  const [left, right] = [clamp(x(-view.x / view.k), WIDTH - 4), clamp(x((size.width - view.x) / view.k), WIDTH)];
  const [top, bottom] = [clamp(y(-view.y / view.k), HEIGHT - 4), clamp(y((size.height - view.y) / view.k), HEIGHT)];
  Object.assign(frame.style, { left: `${left}px`, top: `${top}px`, width: `${Math.max(4, right - left)}px`, height: `${Math.max(4, bottom - top)}px` });
}

/** Paints the tree; each direction is shrunk on its own, since a tree may be a thousand times as high as it is wide. */
function draw(tree, ratio) {
  const { box: whole, x: xs, y: ys, order } = tree.places;
  const shrink = (room, length) => Math.min(LARGEST, (room - 2 * EDGE) / length);
  const [kx, ky] = [shrink(WIDTH, whole.right - whole.left), shrink(HEIGHT, whole.bottom - whole.top)];
  const [middleX, middleY] = [(whole.left + whole.right) / 2, (whole.top + whole.bottom) / 2];
  const place = { kx, ky, middleX, middleY, x: (value) => WIDTH / 2 + (value - middleX) * kx, y: (value) => HEIGHT / 2 + (value - middleY) * ky };
  [canvas.width, canvas.height] = [WIDTH * ratio, HEIGHT * ratio];
  const to = canvas.getContext("2d");
  to.scale(ratio, ratio);
  const { even, good, bad, muted } = colors();
  to.strokeStyle = even;
  to.lineWidth = 0.7;
  to.beginPath();
  for (const node of order) {
    if (!node) continue;
    const parent = tree.parents[node];
    to.moveTo(place.x(xs[parent] + CARD.width), place.y(ys[parent]));
    to.lineTo(place.x(xs[node]), place.y(ys[node]));
  }
  to.stroke();
  const [wide, high] = [Math.max(2, CARD.width * kx), Math.max(1.5, CARD.height * ky)];
  for (const node of order) {
    to.fillStyle = tree.success[node] === null ? muted : tree.success[node] ? good : bad;
    to.fillRect(place.x(xs[node]), place.y(ys[node]) - high / 2, wide, high);
  }
  return { place, ratio, places: tree.places };
}

/** Calls `goTo(x, y)` with the place of the drawing that was pressed. */
export function listen(goTo) {
  const go = (event) => {
    if (!picture || !event.buttons) return;
    const { kx, ky, middleX, middleY } = picture.place;
    goTo(middleX + (event.offsetX - WIDTH / 2) / kx, middleY + (event.offsetY - HEIGHT / 2) / ky);
  };
  canvas.addEventListener("pointerdown", (event) => (canvas.setPointerCapture(event.pointerId), go(event)));
  canvas.addEventListener("pointermove", go);
}
