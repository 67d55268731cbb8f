/** What a request is signed with: SHA-256, HMAC, HKDF, and a code as it is typed. */

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const encoder = new TextEncoder();

type Bytes = Uint8Array<ArrayBuffer>;

export function hex(bytes: Bytes): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function unhex(text: string): Bytes {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** 16 bytes that nobody has seen before. */
export function nonce(): string {
  return hex(crypto.getRandomValues(new Uint8Array(16)));
}

export async function sha256(content: string | ArrayBuffer): Promise<string> {
  const bytes = typeof content === "string" ? encoder.encode(content) : content;
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

/** HMAC-SHA256 of these lines, a line feed between them and none at the end. */
export async function mac(key: Bytes, lines: readonly string[]): Promise<string> {
  const signing = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return hex(new Uint8Array(await crypto.subtle.sign("HMAC", signing, encoder.encode(lines.join("\n")))));
}

/** HKDF-SHA256 to 32 bytes; `salt` in hex. */
export async function derive(secret: Bytes, salt: string, info: string): Promise<Bytes> {
  const base = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const how = { name: "HKDF", hash: "SHA-256", salt: unhex(salt), info: encoder.encode(info) };
  return new Uint8Array(await crypto.subtle.deriveBits(how, base, 256));
}

/** Whether two texts are the same, in a time that does not say where they differ. */
export function same(one: string, other: string): boolean {
  let differing = one.length ^ other.length;
  for (let at = 0; at < one.length; at++) differing |= one.charCodeAt(at) ^ other.charCodeAt(at);
  return differing === 0;
}

/** The 16 bytes of a code as `vaultlab pair` shows it, dashes, spaces and small letters allowed; null: it is none. */
export function decode(code: string): Bytes | null {
  const letters = code.toUpperCase().replace(/[\s-]/g, "");
  if (!/^[A-Z2-7]{26}$/.test(letters)) return null;
  const bits = Array.from(letters, (letter) => LETTERS.indexOf(letter).toString(2).padStart(5, "0")).join("");
  return Uint8Array.from({ length: 16 }, (_, at) => parseInt(bits.slice(8 * at, 8 * at + 8), 2));
}
