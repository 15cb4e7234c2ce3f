/** The part of `globalThis` that says where a page or a worker is. */
export interface Place {
  readonly document?: { readonly baseURI: string };
  readonly location?: { readonly href: string };
}

/** Makes a URL absolute as somebody sees it in that place; one that cannot be made so stays as it is. */
export function toAbsolute(url: string | URL, { document, location }: Place): string {
  const base = document?.baseURI ?? location?.href;
  return URL.canParse(String(url), base) ? new URL(url, base).href : String(url);
}
