// What the page shows. Whoever changes it says so by `emit`; whoever shows it listens by `on`.

export const state = {
  overview: null, // rows, metrics, calibration: see View.overview
  id: "", // of the tree that is shown
  tree: null, // its columns, with what layout.js adds
  node: 0,
  other: null, // the node that the chosen one is compared with
  tab: "tree",
  credit: "", // name of the estimator
  options: "", // its settings, as key=value
};

const listeners = {};

export function on(event, listener) {
  (listeners[event] ??= []).push(listener);
}

export function emit(event) {
  for (const listener of listeners[event] ?? []) listener(state);
}

/** The credit that is shown: {A, Q, V, N}, or {} where there is none. */
export function shownCredit() {
  return state.tree?.credits.get(creditKey()) ?? {};
}

export const creditKey = () => `${state.credit} ${state.options}`.trim();

/** What the server knows its own page by; it is in the part of the address that no browser sends. */
export const token = new URLSearchParams(location.hash.slice(1)).get("token");

export function readAddress() {
  const found = new URLSearchParams(location.hash.slice(1));
  return { id: found.get("tree"), node: Number(found.get("node") ?? 0), tab: found.get("tab"), credit: found.get("credit") };
}

export function writeAddress() {
  const parts = new URLSearchParams({ ...(token && { token }), tree: state.id, node: state.node, tab: state.tab, credit: state.credit });
  history.replaceState(null, "", `#${parts}`);
}
