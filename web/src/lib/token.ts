/**
 * The bearer token: kept for this tab only. A link may bring one as `#token=…`; it is taken out of the address at once,
 * so that it is neither bookmarked nor copied on with it. (A fragment never reaches the server or its logs.)
 */
const KEY = 'eastwest-token';

export function takeToken(): string {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get('token');
  if (given !== null) {
    fragment.delete('token');
    const rest = fragment.toString();
    history.replaceState(null, '', location.pathname + location.search + (rest ? `#${rest}` : ''));
    storeToken(given);
  }
  return sessionStorage.getItem(KEY) ?? '';
}

export function storeToken(token: string): void {
  if (token.trim()) sessionStorage.setItem(KEY, token.trim());
  else sessionStorage.removeItem(KEY);
}
