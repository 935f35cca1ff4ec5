// The tokens of an action, each shaded by how unlikely it was when it was sampled.

import { heat } from "viewer/colors";
import { el, number } from "viewer/dom";

const PART = 1500;

export function tokensOf(entry, texts) {
  const box = el("div", { class: "tokens", role: "group", "aria-label": "Sampled tokens" });
  const { tokens, logprobs } = entry;
  let shown = 0;
  const more = el("button", { class: "more", type: "button", onclick: add });
  function add() {
    const part = el("div", { class: "part" });
    const end = Math.min(tokens.length, shown + PART);
    for (; shown < end; shown++) part.append(tokenOf(tokens[shown], logprobs?.[shown], texts));
    if (more.isConnected) more.before(part);
    else box.append(part);
    more.textContent = `Show ${(tokens.length - shown).toLocaleString("en-US")} more tokens`;
    if (shown < tokens.length) box.append(more);
    else more.remove();
  }
  add();
  return [summary(entry), box];
}

function tokenOf(id, logprob, texts) {
  const known = texts[id];
  const chance = logprob === undefined || logprob === null ? "" : `  log p ${number(logprob)}, p ${number(Math.exp(logprob))}`;
  return el("span", { class: known === undefined ? "id" : "", style: { background: heat(logprob) }, title: `token ${id}${chance}` }, known ?? String(id));
}

function summary({ tokens, logprobs }) {
  const known = (logprobs ?? []).filter((value) => value !== null);
  if (!known.length) return el("p", { class: "note" }, `${tokens.length} tokens, without log-probabilities.`);
  const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
  const scale = [0, -1, -2, -3, -4, -5].map((value) => el("i", { style: { background: heat(value) } }, value === -5 ? "−5" : String(value).replace("-", "−")));
  return el("p", { class: "note" }, `${tokens.length.toLocaleString("en-US")} tokens, mean log p ${number(mean)}, least likely ${number(least(known))} `,
    el("span", { class: "scale", "aria-label": "Scale of log p" }, scale));
}

const least = (values) => values.reduce((a, b) => Math.min(a, b), 0);
