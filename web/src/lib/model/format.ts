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

/** RFC 3339 as local time, `2026-01-02 03:04:05`; what is not a time stays as it is. */
export function time(rfc3339: string): string {
  const date = new Date(rfc3339);
  if (Number.isNaN(date.getTime())) return rfc3339;
  const two = (n: number) => String(n).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`;
}
