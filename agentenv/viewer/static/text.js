// Long texts: the beginning and the end at once, the rest on request, and only what is in sight is laid out.

import { el } from "viewer/dom";

const LONG = 12000;
const HEAD = 6000;
const TAIL = 2000;
const BLOCK = 4000;

export function textOf(words, name = "") {
  const box = el("div", { class: `text ${name}` });
  if (words.length <= LONG) box.append(...blocks(words));
  else {
    const rest = words.slice(HEAD, -TAIL);
    const more = el("button", {
      class: "more",
      type: "button",
      onclick: () => more.replaceWith(...blocks(rest)),
    }, `Show ${rest.length.toLocaleString("en-US")} more characters`);
    box.append(...blocks(words.slice(0, HEAD)), more, ...blocks(words.slice(-TAIL)));
  }
  return box;
}

function blocks(words) {
  const found = [];
  for (let start = 0; start < words.length; ) {
    const line = words.indexOf("\n", start + BLOCK);
    const end = line < 0 || line > start + 2 * BLOCK ? start + 2 * BLOCK : line + 1;
    found.push(el("pre", {}, words.slice(start, end)));
    start = end;
  }
  return found.length ? found : [el("pre", { class: "empty" }, "(nothing)")];
}
