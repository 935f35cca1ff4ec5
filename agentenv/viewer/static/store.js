// Where data comes from: the server that sent the page, or the page itself.

import { token } from "viewer/state";

export const live = document.documentElement.dataset.live === "true";

const kept = new Map();

const packed = new Map();
for (const script of document.querySelectorAll('script[type="text/plain"][data-name]')) packed.set(script.dataset.name, script);

export const overview = () => ask("overview");
export const tree = (id) => ask("tree", id);
export const version = () => ask("version");

/** Details of the part of a tree that begins at node `first`; asked once. */
export function details(id, first, stamp) {
  const key = `${id}/${first}/${stamp}`;
  if (!kept.has(key)) {
    if (kept.size > 40) kept.delete(kept.keys().next().value);
    kept.set(key, ask("details", id, first));
  }
  return kept.get(key);
}

export function credit(id, name, options) {
  if (!live) throw new Error(`This page carries no credit of ${name}: write it with --credit ${name}, or serve the folder.`);
  const query = new URLSearchParams([["name", name], ...options.split(/[\s;]+/).filter(Boolean).map((option) => ["option", option])]);
  return request(`api/credit/${encodeURIComponent(id)}?${query}`);
}

function ask(...parts) {
  if (live) return request(`api/${parts.map(encodeURIComponent).join("/")}`);
  const script = packed.get(parts.join("/"));
  if (!script) return Promise.reject(new Error(`This page does not hold ${parts.join("/")}.`));
  return unpack(script.textContent);
}

/** Starts, feeds, reads or stops a session of `agentenv play`. */
export const play = (verb, asked) => request(`api/play/${verb}`, { method: "POST", body: JSON.stringify(asked) });

async function request(address, options = {}) {
  const response = await fetch(address, { ...options, headers: { "X-Agentenv-Token": token ?? "" } });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.problem ?? `The server answered ${response.status}.`);
  return answer;
}

async function unpack(text) {
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
