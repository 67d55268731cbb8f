/** Runs inside the sandboxed frame: draws what it is handed, and asks nobody for anything. */

import type { Data, Handed, Maps, Sweep, Vectors } from "./data";

const SVG = "http://www.w3.org/2000/svg";
const XHTML = "http://www.w3.org/1999/xhtml";

/** What was chosen, whatever is drawn anew: with other colours, or another value of a sweep. */
const chosen: { sweep?: number; place?: [number, number]; token?: number; value?: number } = {};

window.addEventListener("message", ({ source, data }: MessageEvent<Handed>) => {
  if (source !== window.parent) return;
  for (const [name, value] of Object.entries(data.colours)) document.documentElement.style.setProperty(`--${name}`, value);
  document.documentElement.style.colorScheme = data.scheme;
  const main = html("main");
  document.body.replaceChildren(main);
  draw(main, data.data);
  new ResizeObserver(() => window.parent.postMessage({ height: Math.ceil(main.getBoundingClientRect().height) }, "*")).observe(main);
});

function draw(into: HTMLElement, data: Data): void {
  if (data.kind === "sweep") sweep(into, data);
  else if (data.kind === "maps") maps(into, data);
  else vectors(into, data);
}

function sweep(into: HTMLElement, { field, values, each }: Sweep): void {
  const inside = html("div");
  const at = slider(into, field, values, chosen.sweep ?? Math.floor(values.length / 2), (now) => {
    chosen.sweep = now;
    const one = each[now];
    inside.replaceChildren();
    if (one) draw(inside, one);
  });
  into.append(inside);
  at();
}

/** A slider over values, with the value beside it; what it gives sets off the first drawing. */
function slider(into: HTMLElement, name: string, values: (number | string)[], first: number, show: (at: number) => void): () => void {
  const row = html("label", { class: "row" });
  const input = html("input", { type: "range", min: "0", max: String(values.length - 1), step: "1", value: String(first) });
  const told = html("span", { class: "value", "aria-hidden": "true" }); // the slider says it by itself
  row.append(html("span", {}, name), input, told);
  const now = () => {
    const at = Number(input.value);
    told.textContent = String(values[at]);
    input.setAttribute("aria-valuetext", `${name} ${values[at]}`);
    show(at);
  };
  input.addEventListener("input", now);
  into.append(row);
  return now;
}

// -- maps: where each head looks

function maps(into: HTMLElement, data: Maps): void {
  const bytes = Uint8Array.from(atob(data.maps), (letter) => letter.charCodeAt(0));
  const size = data.labels.length;
  const [toRow, toColumn] = chosen.place ?? data.chosen;
  let [row, column] = [Math.min(toRow, data.rows.length - 1), Math.min(toColumn, data.columns.length - 1)];
  let query = Math.min(chosen.token ?? size - 1, size - 1);
  const weight = (q: number, k: number) => {
    const place = (row * data.columns.length + column) * size * size;
    return ((bytes[place + q * size + k] ?? 0) / 255) * (data.most[row]?.[column] ?? 0);
  };
  const choose = html("div", { class: "row" });
  const picks = [picker(data.axes[0], data.rows), picker(data.axes[1], data.columns)] as const;
  const grid = svg("svg", { class: "grid", "aria-hidden": "true" });
  const tokens = html("div", { class: "tokens", role: "group", "aria-label": "Tokens: go from one to the next with the arrow keys to hear what it gets from the others" });
  const map = svg("svg", { class: "map", viewBox: `0 0 ${size} ${size}`, "aria-hidden": "true" });
  const told = html("p", { role: "status" });
  for (const [at, [label, select]] of picks.entries()) {
    select.addEventListener("change", () => {
      if (at === 0) row = Number(select.value);
      else column = Number(select.value);
      redraw();
    });
    choose.append(label);
  }
  const cells = heads(grid, data, (r, c) => {
    [row, column] = [r, c];
    redraw();
  });
  const buttons = data.labels.map((text, at) => {
    const button = html("button", { type: "button", class: "token" }, text);
    for (const name of ["mouseenter", "focus"]) {
      button.addEventListener(name, () => {
        query = chosen.token = at;
        shade();
      });
    }
    return button;
  });
  tokens.append(...buttons);
  oneStop(buttons, query);
  const squares: SVGElement[][] = [];
  for (let q = 0; q < size; q++) {
    squares.push([]);
    for (let k = 0; k <= q; k++) {
      const square = svg("rect", { x: String(k), y: String(q), width: "1", height: "1" });
      square.addEventListener("mouseenter", () => {
        query = chosen.token = q;
        shade(k);
      });
      squares[q]?.push(square);
      map.append(square);
    }
  }
  const shade = (key: number | null = null) => {
    const given = buttons.map((_, k) => (k <= query ? weight(query, k) : 0));
    const most = Math.max(...given, 1e-12);
    for (const [k, button] of buttons.entries()) {
      button.style.setProperty("--share", String((given[k] ?? 0) / most));
      button.classList.toggle("asks", k === query);
      button.classList.toggle("ahead", k > query);
    }
    const from = key ?? given.indexOf(Math.max(...given));
    const verb = key === null ? "gets most from" : "gets from";
    const word = (at: number) => data.labels[at]?.trim() || data.labels[at];
    told.textContent = `“${word(query)}” ${verb} “${word(from)}”: ${number(given[from] ?? 0)} ${data.unit}`;
  };
  const redraw = () => {
    chosen.place = [row, column];
    picks[0][1].value = String(row);
    picks[1][1].value = String(column);
    for (const [r, line] of cells.entries()) for (const [c, cell] of line.entries()) cell.classList.toggle("chosen", r === row && c === column);
    const most = Math.max(data.most[row]?.[column] ?? 0, 1e-12);
    for (const [q, line] of squares.entries()) for (const [k, square] of line.entries()) square.style.setProperty("--share", String(weight(q, k) / most));
    shade();
  };
  const beside = html("div", { class: "beside" });
  beside.append(figure(grid, `${data.axes[0]} down, ${data.axes[1]} across: how much each writes`), figure(map, "down: who gets; across: who gives"));
  into.append(choose, tokens, told, beside);
  redraw();
}

function picker(name: string, values: number[]): [HTMLLabelElement, HTMLSelectElement] {
  const select = html("select");
  for (const [at, value] of values.entries()) select.append(html("option", { value: String(at) }, String(value)));
  const label = html("label", {}, name);
  label.append(select);
  return [label, select];
}

function heads(grid: SVGElement, { rows, columns, strength }: Maps, choose: (row: number, column: number) => void): SVGElement[][] {
  grid.setAttribute("viewBox", `0 0 ${columns.length} ${rows.length}`);
  const most = Math.max(...strength.flat(), 1e-12);
  return rows.map((_, r) =>
    columns.map((_, c) => {
      const cell = svg("rect", { x: String(c), y: String(r), width: "1", height: "1" });
      cell.style.setProperty("--share", String((strength[r]?.[c] ?? 0) / most));
      cell.addEventListener("click", () => choose(r, c));
      grid.append(cell);
      return cell;
    }),
  );
}

function figure(drawn: SVGElement, caption: string): HTMLElement {
  const outer = html("figure");
  outer.append(drawn, html("figcaption", {}, caption));
  return outer;
}

// -- vectors: arrows that share a space

function vectors(into: HTMLElement, data: Vectors): void {
  const longest = Math.max(1, ...data.vectors.flat().map((one) => Math.hypot(...one)));
  const half = longest * 1.25;
  const plane = svg("svg", { class: "plane", viewBox: `${-half} ${-half} ${2 * half} ${2 * half}` });
  const told = html("p", { role: "status" });
  let turn: [number, number] = [0.5, 0.35];
  let shown = Math.min(chosen.value ?? data.chosen, data.values.length - 1);
  const solid = data.vectors[0]?.[0]?.length === 3;
  plane.setAttribute("role", "group");
  plane.setAttribute("aria-label", solid ? "Arrows in three dimensions: drag, or turn with the arrow keys" : "Arrows");
  const redraw = () => {
    const ring = solid ? [] : [svg("circle", { r: "1", class: "ring" })];
    const arrows = (data.vectors[shown] ?? []).map((one, at) => arrow(flat(one, turn), one, at, half, told));
    plane.replaceChildren(...ring, ...arrows.flat());
    oneStop(arrows.map(([line]) => line));
    told.textContent = data.notes[shown] ?? "";
  };
  const begin = slider(into, data.axis, data.values, shown, (at) => {
    shown = chosen.value = at;
    redraw();
  });
  if (solid) turning(plane, (dx, dy) => {
    turn = [turn[0] + dx, Math.max(-1.5, Math.min(1.5, turn[1] + dy))];
    redraw();
  });
  into.append(plane, told);
  begin();
}

/** On the screen: a third coordinate goes into the depth. */
function flat(vector: number[], [around, up]: [number, number]): [number, number] {
  const [x = 0, y = 0, z] = vector;
  if (z === undefined) return [x, vector.length === 1 ? 0 : -y];
  const right = x * Math.cos(around) + z * Math.sin(around);
  const depth = z * Math.cos(around) - x * Math.sin(around);
  return [right, -(y * Math.cos(up) + depth * Math.sin(up))];
}

function arrow([x, y]: [number, number], vector: number[], at: number, half: number, told: HTMLElement): [SVGElement, ...SVGElement[]] {
  const line = svg("line", { x1: "0", y1: "0", x2: String(x), y2: String(y), role: "img", class: `arrow c${at % 8}` });
  const tip = svg("circle", { cx: String(x), cy: String(y), r: String(half / 60), class: `tip c${at % 8}` });
  const far = Math.hypot(x, y) || 1;
  const [labelX, labelY] = [x + ((half / 14) * x) / far, y + ((half / 14) * y) / far];
  const label = svg("text", { x: String(labelX), y: String(labelY), "font-size": String(half / 12) });
  label.textContent = String(at + 1);
  const said = `Feature ${at + 1}: length ${number(Math.hypot(...vector))}`;
  line.setAttribute("aria-label", said);
  for (const part of [line, tip]) for (const name of ["mouseenter", "focus"]) part.addEventListener(name, () => (told.textContent = said));
  return [line, tip, label];
}

function turning(plane: SVGElement, turn: (dx: number, dy: number) => void): void {
  plane.setAttribute("tabindex", "0");
  plane.addEventListener("pointerdown", ({ pointerId }) => plane.setPointerCapture(pointerId));
  plane.addEventListener("pointermove", ({ buttons, movementX, movementY }) => {
    if (buttons) turn(movementX / 100, movementY / 100);
  });
  const keys: Record<string, [number, number]> = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  plane.addEventListener("keydown", (event) => {
    const by = event.target === plane && keys[event.key];
    if (!by) return;
    event.preventDefault();
    turn(...by);
  });
}

// -- elements

/** Among many that can have the focus the Tab key stops at one; the arrow keys go on from there. */
function oneStop(parts: readonly (HTMLElement | SVGElement)[], first = 0): void {
  for (const [at, part] of parts.entries()) {
    part.setAttribute("tabindex", at === first ? "0" : "-1");
    part.addEventListener("keydown", (event: Event) => {
      const places: Record<string, number> = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: parts.length - 1 };
      const next = parts[places[(event as KeyboardEvent).key] ?? -1];
      if (!next) return;
      event.preventDefault();
      part.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  }
}

function html<Name extends keyof HTMLElementTagNameMap>(name: Name, attributes: Record<string, string> = {}, text = ""): HTMLElementTagNameMap[Name] {
  const element = made<HTMLElementTagNameMap[Name]>(XHTML, name, attributes);
  if (text) element.textContent = text;
  return element;
}

function svg(name: string, attributes: Record<string, string>): SVGElement {
  return made<SVGElement>(SVG, name, attributes);
}

/** This page is bare: nothing of the app's own ways to make elements is here. */
function made<Made extends Element>(space: string, name: string, attributes: Record<string, string>): Made {
  const element: Element = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element as Made;
}

function number(value: number): string {
  return value === 0 ? "0" : Number(value.toPrecision(3)).toString();
}
