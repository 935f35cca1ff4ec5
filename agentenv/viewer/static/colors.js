// Colors of the page's styles, for drawing; and the scales from numbers to colors.

let known = {};

export function readColors() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "surface", "line", "text", "muted", "accent", "good", "bad", "even", "fork", "other", "warn"];
  known = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  return known;
}

export const colors = () => known;

const STEPS = 5;

/** The class of an advantage, from -5 to 5, given the largest one. */
export function bucket(advantage, largest) {
  if (advantage === null || advantage === undefined || !largest) return 0;
  const share = Math.max(-1, Math.min(1, advantage / largest));
  return share === 0 ? 0 : Math.sign(share) * Math.max(1, Math.round(Math.abs(share) * STEPS));
}

export function ofBucket(k) {
  if (!k) return known.even;
  return mix(known.even, k > 0 ? known.good : known.bad, 0.25 + (0.75 * Math.abs(k)) / STEPS);
}

export const buckets = Array.from({ length: 2 * STEPS + 1 }, (_, i) => i - STEPS);

function mix(from, to, share) {
  const [a, b] = [parse(from), parse(to)];
  return `rgb(${a.map((value, i) => Math.round(value + (b[i] - value) * share)).join(",")})`;
}

function parse(color) {
  return [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
}

/** The background of a token: the less likely it was, the more of the warning color. */
export function heat(logprob) {
  if (logprob === null || logprob === undefined) return "transparent";
  const surprise = Math.min(1, -logprob / 5);
  return `color-mix(in srgb, var(--warn) ${Math.round(85 * surprise)}%, transparent)`;
}

/**
 * The largest advantage worth a full color: the 98th percentile, so that one outlier does not gray out the rest, and a twentieth of
 * what is at stake at the least, so that rounding is not drawn like a mistake.
 */
export function scaleOf({ A, Q }) {
  const sizes = (A ?? []).filter((value) => value).map(Math.abs).sort((a, b) => a - b);
  if (!sizes.length) return 0;
  const stake = (Q ?? []).reduce((most, value) => Math.max(most, Math.abs(value ?? 0)), 0);
  return Math.max(sizes[Math.min(sizes.length - 1, Math.floor(0.98 * sizes.length))], stake / 20);
}
