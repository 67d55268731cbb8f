import { Buffer } from "node:buffer";
import { afterEach, expect, test, vi } from "vitest";
import { SUPERPOSITION } from "./catalogue";
import { block } from "./daemon";
import { House, sha256 } from "./plugin";

const SOURCE = "superposition: pentagon";
const RESULT = '---\nlab_status: done\nlab_ask: "0"\n---\n';
const DATA = { kind: "vectors", axis: "seed", values: [0], vectors: [[[1, 0]]], notes: ["one"], chosen: 0 };
const base64 = (data: object) => Buffer.from(JSON.stringify(data)).toString("base64");
const last = { note: "vaultlab/pentagon.md", status: "done" as const, key: "k1", verdict: null, claims: {}, headline: {}, figures: {} };

let house: House;
afterEach(() => house.close());

async function opened(content: string | null, interactive = true): Promise<HTMLElement> {
  house = await House.open({ "Note.md": `\`\`\`vaultlab\n${SOURCE}\n\`\`\`\n`, "vaultlab/pentagon.md": RESULT });
  const { daemon } = house;
  daemon.experiments = { superposition: { ...SUPERPOSITION, interactive } };
  daemon.plan = () => ({ blocks: [block({ sha256: sha256(SOURCE), state: "fresh", last })] });
  daemon.answer = (_, target) => {
    if (!target.includes("/artifacts/")) return null;
    return content === null ? [404, { message: "There is none.", hint: "", line: null, field: null }] : [200, { kind: "json", content, alt: "" }];
  };
  house.plugin.unload();
  house.plugin.load();
  const element = house.render("Note.md", SOURCE, 1);
  await vi.waitFor(() => expect(element.querySelector("[data-action=open]")).not.toBeNull());
  return element;
}

const explore = async (element: HTMLElement) => {
  await vi.waitFor(() => expect(element.querySelector("[data-action=explore]")).not.toBeNull());
  element.querySelector<HTMLElement>("[data-action=explore]")?.click();
};

test("a figure opens in a frame that may run its own script and nothing else, and closes again", async () => {
  const element = await opened(base64(DATA));
  await explore(element);
  const frame = await vi.waitFor(() => {
    const found = element.querySelector("iframe");
    if (!found) throw new Error("no frame");
    return found;
  });
  expect(frame.getAttribute("sandbox")).toBe("allow-scripts");
  expect(frame.getAttribute("srcdoc")).toContain("default-src 'none'");
  expect(frame.getAttribute("srcdoc")).not.toMatch(/https?:\/\/(?!www\.w3\.org)/);
  expect(element.querySelector("[data-action=explore]")?.textContent).toBe("Close the figure");
  await explore(element);
  await vi.waitFor(() => expect(element.querySelector("iframe")).toBeNull());
});

test("it stays while the block is drawn anew, and goes when there are other numbers", async () => {
  const element = await opened(base64(DATA));
  await explore(element);
  const frame = await vi.waitFor(() => element.querySelector("iframe") ?? Promise.reject(new Error("no frame")));
  const where = { path: "Note.md", id: "pentagon", run: "7" };
  house.daemon.tell({ kind: "running", ...where, done: 1, total: 2 });
  await vi.waitFor(() => expect(element.querySelector("progress")).not.toBeNull());
  expect(element.querySelector("iframe")).toBe(frame);
  house.daemon.plan = () => ({ blocks: [block({ sha256: sha256(SOURCE), state: "fresh", last: { ...last, key: "k2" } })] });
  house.daemon.tell({ kind: "done", ...where });
  await vi.waitFor(() => expect(element.querySelector("iframe")).toBeNull());
});

test("an experiment without such figures offers none; a result without one says so", async () => {
  const element = await opened(base64(DATA), false);
  expect(element.querySelector("[data-action=explore]")).toBeNull();
  house.close();
  const other = await opened(null);
  await explore(other);
  await vi.waitFor(() => expect(other.textContent).toContain("nothing to explore"));
  expect(other.querySelector("iframe")).toBeNull();
});

test("what is none of the figures that can be drawn is not drawn", async () => {
  const element = await opened(base64({ kind: "page", html: "<b>" }));
  await explore(element);
  await vi.waitFor(() => expect(element.textContent).toContain("nothing to explore"));
  expect(element.querySelector("iframe")).toBeNull();
});

test("while its data is fetched that is said, and it is fetched once", async () => {
  const element = await opened(base64(DATA));
  await explore(element);
  await vi.waitFor(() => expect(element.querySelector("[data-action=explore]")?.textContent).toBe("Opening the figure…"));
  element.querySelector<HTMLElement>("[data-action=explore]")?.click();
  await vi.waitFor(() => expect(element.querySelector("iframe")).not.toBeNull());
  expect(house.daemon.requests("/v1/blocks/pentagon/artifacts/data")).toHaveLength(1);
  expect(element.querySelectorAll("iframe")).toHaveLength(1);
});

test("its height is heard in whatever window it is, and no longer when it has gone", async () => {
  const element = await opened(base64(DATA));
  await explore(element);
  const frame = await vi.waitFor(() => element.querySelector("iframe") ?? Promise.reject(new Error("no frame")));
  const away = document.body.appendChild(document.createElement("iframe")).contentWindow as typeof window;
  const says = (in_: typeof window, height: number) =>
    in_.dispatchEvent(new in_.MessageEvent("message", { source: frame.contentWindow, data: { height } }));
  frame.dispatchEvent(new Event("load"));
  says(window, 200);
  expect(frame.getAttribute("height")).toBe("200");
  Object.defineProperty(frame, "ownerDocument", { value: away.document, configurable: true });
  frame.dispatchEvent(new Event("load"));
  says(away, 300);
  expect(frame.getAttribute("height")).toBe("300");
  says(window, 400);
  expect(frame.getAttribute("height")).toBe("300");
});
