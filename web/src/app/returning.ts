/** A path of this page: what an address asks for is not to be trusted. */
export function placeToReturn(search: string): string {
  const asked = new URLSearchParams(search).get("return_to") ?? "/";
  return /^\/(?![/\\])[\x21-\x7e]*$/.test(asked) && !asked.startsWith("/login") ? asked : "/";
}
