const number = new Intl.NumberFormat('en');

/** 12345 → `12,345`. */
export function count(n: number): string {
  return number.format(n);
}

/** `1 node`, `2 nodes`, `1,000 nodes`. */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** Microseconds as a person reads them: `840 µs`, `3.2 ms`, `1.5 s`. */
export function duration(us: number): string {
  if (us < 1000) return `${us} µs`;
  if (us < 1_000_000) return `${trim(us / 1000)} ms`;
  return `${trim(us / 1_000_000)} s`;
}

function trim(n: number): string {
  return n < 10 ? n.toFixed(1).replace(/\.0$/, '') : Math.round(n).toString();
}
