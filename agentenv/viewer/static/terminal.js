// `agentenv play` in the page: the server runs it at a step of the tree; lines go there, and what it says is shown here.

import { $, el, replace } from "viewer/dom";
import * as store from "viewer/store";

const box = $("#terminal");
let session = null; // of the server; another one begins when the person plays from another step

export async function open(tree, node) {
  await close();
  const said = el("pre", { role: "log", "aria-label": "What was played", tabIndex: 0 });
  const line = el("input", { type: "text", "aria-label": "Action or command", placeholder: "an action, or :help", autocomplete: "off", spellcheck: false, onkeydown: type });
  replace(box, el("header", {}, el("b", {}, `Playing from node ${node}`), el("button", { type: "button", onclick: close, "aria-label": "End the session" }, "End")), said, line);
  box.hidden = false;
  const { session: mine } = await store.play("start", { tree, node });
  session = mine;
  line.focus();
  follow(mine, said, line);
}

/** Shows what a session says, until it ends. */
async function follow(mine, said, line) {
  try {
    for (let since = 0, ended = false; session === mine && !ended; ) {
      const news = await store.play("read", { session: mine, since });
      ({ next: since, ended } = news);
      said.append(news.text);
      said.scrollTop = said.scrollHeight;
    }
    if (session === mine) said.append("(ended)\n");
  } catch (error) {
    if (session === mine) said.append(`${error.message}\n`);
  }
  if (session === mine) line.disabled = true;
  said.scrollTop = said.scrollHeight;
}

const past = [];
let place = 0;

async function type(event) {
  const line = event.target;
  if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    event.preventDefault();
    place = Math.max(0, Math.min(past.length, place + (event.key === "ArrowUp" ? -1 : 1)));
    line.value = past[place] ?? "";
  }
  if (event.key !== "Enter" || !line.value.trim() || session === null) return;
  const words = line.value;
  line.value = "";
  place = past.push(words);
  try {
    await store.play("send", { session, line: words });
  } catch (error) {
    $("pre", box).append(`${error.message}\n`);
  }
}

async function close() {
  const old = session;
  session = null;
  box.hidden = true;
  if (old !== null) await store.play("stop", { session: old });
}
