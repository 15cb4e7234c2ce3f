/** Turns a `file:` URL into a path, as native code needs it; other text stays as it is. */
export function toPath(location: string): string {
  if (!/^file:/i.test(location)) return location;
  const path = location.replace(/^file:(\/\/[^/]*)?/i, '');
  try {
    return decodeURIComponent(path);
  } catch {
    // A bare percent sign: whoever wrote it put the scheme before a path and encoded nothing.
    return path;
  }
}
