import { expect, test } from "vitest";
import { decode, derive, hex, mac, same, sha256, unhex } from "../src/sign";

test("HKDF gives what its RFC says, cut to 32 bytes", async () => {
  // RFC 5869, A.3
  const plain = await derive(unhex("0b".repeat(22)), "", "");
  expect(hex(plain)).toBe("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
});

test("HMAC gives what its RFC says, and lines are put together with line feeds", async () => {
  // RFC 4231, test case 2
  const key = new TextEncoder().encode("Jefe");
  const said = await mac(key, ["what do ya want for nothing?"]);
  expect(said).toBe("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  expect(await mac(key, ["a", "b"])).toBe(await mac(key, ["a\nb"]));
});

test("a code is read as it is shown, and as it is typed", () => {
  const code = "MFRG-GZDF-MZTW-Q2LK-NNWG-23TP-OA";
  const meant = "6162636465666768696a6b6c6d6e6f70";
  expect(hex(decode(code)!)).toBe(meant);
  expect(hex(decode(` ${code.toLowerCase().replaceAll("-", " ")}`)!)).toBe(meant);
  expect(decode("MFRG-GZDF")).toBeNull();
  expect(decode(code.replace("M", "1"))).toBeNull();
});

test("a hash is that of the text's UTF-8", async () => {
  expect(await sha256("ä")).toBe("33e6d73fee82904c8d7afb78de1154d1e8dc2a0edb08120e63df5b9385c2d9cc");
});

test("only the same is the same", () => {
  expect(same("ab", "ab")).toBe(true);
  expect(same("ab", "abc") || same("ab", "ac") || same("", "a")).toBe(false);
});
