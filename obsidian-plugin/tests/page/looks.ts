/** What is asked of a page's looks, by itself: each runs in the page, and answers with what is wrong. */

/** Every text under here that has less than 4.5 : 1 to what is behind it. */
export function contrasts(root: string): string[] {
  const channel = (value: number) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r = 0, g = 0, b = 0]: number[]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const numbers = (color: string) => {
    const found = (color.match(/[\d.]+(?:e-?\d+)?/g) ?? []).map(Number);
    return color.startsWith("color(srgb") ? found.map((one, at) => (at < 3 ? 255 * one : one)) : found; // what is mixed
  };
  const behind = (element: Element): number[] => {
    const grounds: number[][] = [];
    for (let one: Element | null = element; one; one = one.parentElement) {
      const ground = numbers(getComputedStyle(one).backgroundColor);
      if (ground[3] !== 0) grounds.unshift(ground);
    }
    return grounds.reduce((below, [r = 0, g = 0, b = 0, a = 1]) => [r, g, b].map((own, at) => own * a + (below[at] ?? 0) * (1 - a)), [255, 255, 255]);
  };
  const found: string[] = [];
  for (const element of Array.from(document.querySelectorAll(`${root}, ${root} *`))) {
    const own = Array.from(element.childNodes).some((one) => one.nodeType === 3 && one.textContent?.trim());
    // The button that is the app's own way to say “this one” has the app's own colours.
    if (!own || element.namespaceURI?.endsWith("svg") || element.matches(".mod-cta")) continue;
    const [one, other] = [light(numbers(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = ((one ?? 0) + 0.05) / ((other ?? 0) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${element.textContent ?? ""}`);
  }
  return found;
}

/** Whatever sticks out of one of these at its side, or has its own text cut off. */
export function sticking(root: string): string[] {
  return Array.from(document.querySelectorAll(`${root} *`))
    .filter((one) => {
      const { right } = one.getBoundingClientRect();
      const clipped = one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX === "hidden" && one.clientWidth > 1;
      return right > one.closest(root)!.getBoundingClientRect().right + 0.5 || clipped;
    })
    .map((one) => `${one.getAttribute("class") ?? one.tagName}: ${one.textContent ?? ""}`);
}
