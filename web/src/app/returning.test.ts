import { expect, test } from "vitest";
import { placeToReturn } from "./returning";

test("a login leads back to the exact place, and to no other site", () => {
  const back = (to: string) => placeToReturn(`?${new URLSearchParams({ return_to: to })}`);
  for (const path of ["/", "/experiments/7?level=ERROR", "/?q=a%20b&from=all"]) expect(back(path)).toBe(path);
  for (const path of [
    "//evil.example",
    "/\\evil.example",
    "https://evil.example",
    "javascript:alert(1)",
    "/login",
    "",
    "/a b",
  ]) {
    expect(back(path)).toBe("/");
  }
  expect(placeToReturn("")).toBe("/");
});
