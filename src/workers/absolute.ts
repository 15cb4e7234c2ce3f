/** Makes a URL absolute as the page or worker that runs this sees it; one that cannot be made so stays as it is. */
export function toAbsolute(url: string | URL): string {
  const { document, location } = globalThis as {
    readonly document?: { readonly baseURI: string };
    readonly location?: { readonly href: string };
  };
  const base = document?.baseURI ?? location?.href;
  return URL.canParse(String(url), base) ? new URL(url, base).href : String(url);
}
