/** What the app adds to the page's elements, as far as the plugin uses it. */

interface Options {
  cls?: string | string[];
  text?: string;
  href?: string;
  type?: string;
  value?: string;
  attr?: Record<string, string | number | boolean | null>;
}

function made(tag: string, options: Options | string = {}): HTMLElement {
  const element = document.createElement(tag);
  const { cls, text, attr, ...rest } = typeof options === "string" ? { cls: options } : options;
  for (const name of [cls ?? []].flat().flatMap((one) => one.split(" "))) if (name) element.classList.add(name);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries({ ...rest, ...attr })) set(element, name, value);
  return element;
}

function set(element: Element, name: string, value: string | number | boolean | null): void {
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, String(value));
}

const additions = {
  createEl(this: Node, tag: string, options?: Options | string): HTMLElement {
    return this.appendChild(made(tag, options));
  },
  createDiv(this: Node, options?: Options | string): HTMLElement {
    return this.appendChild(made("div", options));
  },
  createSpan(this: Node, options?: Options | string): HTMLElement {
    return this.appendChild(made("span", options));
  },
  appendText(this: Element, text: string): void {
    this.append(text);
  },
  empty(this: Element): void {
    this.replaceChildren();
  },
  addClass(this: Element, ...names: string[]): void {
    this.classList.add(...names);
  },
  removeClass(this: Element, ...names: string[]): void {
    this.classList.remove(...names);
  },
  toggleClass(this: Element, name: string, on: boolean): void {
    this.classList.toggle(name, on);
  },
  setText(this: Element, text: string): void {
    this.textContent = text;
  },
  setAttr(this: Element, name: string, value: string): void {
    set(this, name, value);
  },
  setAttrs(this: Element, attributes: Record<string, string | number | boolean | null>): void {
    for (const [name, value] of Object.entries(attributes)) set(this, name, value);
  },
  instanceOf(this: Node, kind: new () => unknown): boolean {
    return this instanceof kind;
  },
};

Object.assign(Node.prototype, additions);
Object.assign(window, {
  activeWindow: window,
  activeDocument: document,
  createEl: made,
  createDiv: (options?: Options | string) => made("div", options),
  createSpan: (options?: Options | string) => made("span", options),
  createFragment: () => document.createDocumentFragment(),
});

// jsdom lays nothing out: CodeMirror asks all the same.
if (!Range.prototype.getClientRects) {
  Range.prototype.getClientRects = () => [] as unknown as DOMRectList;
  Range.prototype.getBoundingClientRect = () => new DOMRect();
}
