// Paper: the tree drawn anew in light colors at the width of a page, then everything else below it.

import * as canvas from "viewer/canvas";
import { $ } from "viewer/dom";
import { state } from "viewer/state";

const [WIDTH, MOST] = [1000, 1300];

export function listen() {
  let picture = null;
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.paper = "true";
    canvas.refresh();
    const box = state.tree?.places?.box;
    if (!box || picture) return;
    picture = document.createElement("canvas");
    const k = Math.min(1, (WIDTH - 20) / (box.right - box.left), (MOST - 20) / (box.bottom - box.top));
    const height = Math.max(60, Math.min(MOST, (box.bottom - box.top) * k + 20));
    [picture.width, picture.height, picture.className] = [WIDTH * 2, height * 2, "paper"];
    canvas.paint(picture.getContext("2d"), { x: 10, y: 10 - box.top * k, k, width: WIDTH, height, ratio: 2 });
    $("#stage").append(picture);
  });
  addEventListener("afterprint", () => {
    picture?.remove();
    picture = null;
    delete document.documentElement.dataset.paper;
    canvas.refresh();
  });
}
