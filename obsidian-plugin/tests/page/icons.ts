/** Line drawings for the names of icons that the plugin asks for. */

const CIRCLE = '<circle cx="12" cy="12" r="9"/>';
const ICONS: Record<string, string> = {
  check: '<path d="M5 12l5 5L20 7"/>',
  x: '<path d="M6 6l12 12M18 6L6 18"/>',
  minus: '<path d="M6 12h12"/>',
  circle: CIRCLE,
  clock: `${CIRCLE}<path d="M12 7v5l3 2"/>`,
  loader: '<path d="M12 3v4M12 17v4M3 12h4M17 12h4M6 6l2.5 2.5M15.5 15.5L18 18M6 18l2.5-2.5M15.5 8.5L18 6"/>',
  "check-circle-2": `${CIRCLE}<path d="M8.5 12l2.5 2.5 4.5-5"/>`,
  "circle-dashed": '<circle cx="12" cy="12" r="9" stroke-dasharray="4 3"/>',
  "alert-triangle": '<path d="M12 4L2.5 20h19zM12 10v4M12 17v.01"/>',
  "help-circle": `${CIRCLE}<path d="M9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.7M12 16.5v.01"/>`,
  "code-2": '<path d="M9 8l-4 4 4 4M15 8l4 4-4 4"/>',
};

/** Draw every icon on the page that has not been drawn yet. */
export function drawIcons(root: ParentNode): void {
  for (const icon of Array.from(root.querySelectorAll("svg.svg-icon:empty"))) {
    const name = /lucide-([\w-]+)/.exec(icon.getAttribute("class") ?? "")?.[1] ?? "";
    icon.setAttribute("viewBox", "0 0 24 24");
    const drawn = new DOMParser().parseFromString(`<svg xmlns="http://www.w3.org/2000/svg">${ICONS[name] ?? CIRCLE}</svg>`, "image/svg+xml");
    icon.append(...Array.from(drawn.documentElement.children));
  }
}
