"""What a page is looked through for by scripts that run in it."""

from __future__ import annotations

VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""

NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, a[href], [role=img], [role=region]")]
  .filter((one) => one.checkVisibility())
  .filter((one) => ![one.getAttribute("aria-label"), one, ...(one.labels ?? [])].some((name) => (name?.textContent ?? name ?? "").trim()))
  .map((one) => one.outerHTML)"""
"""Controls and pictures that are shown and have no name."""

FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = (node) => {
    for (let one = node; one !== null; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour[3] === 255) return colour;
      if (colour[3] !== 0) throw new Error(`half transparent: ${one.outerHTML.slice(0, 100)}`);
    }
    return [255, 255, 255, 255];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const faint = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest(".unseen, .skip, noscript, script, option")) continue;
    seen += 1;
    const style = getComputedStyle(node);
    const [one, other] = [light(rgba(style.color)), light(behind(node))].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < least) faint.push(`${contrast.toFixed(2)} ${node.className}: ${walker.currentNode.data.trim()}`);
  }
  return { seen, faint };
}"""
"""Text whose contrast is below that of WCAG 2.2 AA, and how much text was looked at."""

HEADINGS = """() => [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")]
  .filter((one) => !one.closest("dialog"))
  .map((one) => Number(one.tagName[1]))"""

OUTLINE = """() => {
  const style = getComputedStyle(document.activeElement);
  return style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
}"""
"""How thick the line around the focus is."""

WATCH = """() => {
  window.made = 0;
  window.spoken = 0;
  const sum = (records) => records.reduce((all, one) => all + one.addedNodes.length + one.removedNodes.length, 0);
  const watch = (place, seen) => new MutationObserver(seen).observe(place, { childList: true, subtree: true, characterData: true });
  watch(document.querySelector("main"), (records) => (window.made += sum(records)));
  watch(document.querySelector("#announcer"), (records) => (window.spoken += records.length));
}"""
"""Counts the nodes that are made or moved from here on, and what screen readers are told."""

WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((one) => one.checkVisibility() && !one.closest(".unseen, .skip, svg") && one.getBoundingClientRect().right > innerWidth + 0.5)
  .map((one) => one.outerHTML.slice(0, 120))"""
"""What reaches out of the window to the right."""
