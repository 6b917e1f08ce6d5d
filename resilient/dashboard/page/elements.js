/* The DOM by calls alone. Names, reasons and causes come from outside: they are text, and never markup. */

const SVG = "http://www.w3.org/2000/svg";

/* Told apart without colour: each condition has an outline of its own, in a box of 16 by 16. */
const SHAPES = {
  ok: "M8 2a6 6 0 1 0 0 12a6 6 0 1 0 0-12z",
  warning: "M8 1 15.5 14.5H.5z",
  bad: "M5 1h6l4 4v6l-4 4H5l-4-4V5z",
  isolated: "M5 1h6l4 4v6l-4 4H5l-4-4V5zM4 6.8v2.4h8V6.8z",
  half: "M8 .5 15.5 8 8 15.5.5 8zM8 3.6v8.8L12.4 8z",
  off: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13zM8 4a4 4 0 1 1 0 8a4 4 0 1 1 0-8z",
  info: "M8 5a3 3 0 1 0 0 6a3 3 0 1 0 0-6z",
};

export const byId = (id) => document.getElementById(id);

/** An element; `children` are nodes, or strings that become text. */
export function element(name, attributes = {}, ...children) {
  return furnish(document.createElement(name), attributes, children);
}

export function drawing(name, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, name), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Sets an element's only text, and touches nothing where it is that already. */
export function write(node, text) {
  const only = node.firstChild;
  if (only === null) {
    if (text !== "") node.textContent = text;
  } else if (only.data !== text) {
    only.data = text;
  }
}

export function attribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/** A mark whose outline `reshape` changes. Decoration: the word beside it says the same. */
export function shape(kind) {
  const mark = drawing(
    "svg",
    { class: "shape", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
    drawing("path", { "fill-rule": "evenodd" }),
  );
  reshape(mark, kind);
  return mark;
}

export function reshape(mark, kind) {
  attribute(mark.firstChild, "d", SHAPES[kind] ?? SHAPES.off);
}

/** Puts `nodes` into their order under `parent`, around the one that has the focus: moving that would lose it. */
export function arrange(parent, nodes) {
  const kept = nodes.find((node) => node.contains(document.activeElement));
  let place = nodes.length > 0 ? firstOf(parent, nodes) : null;
  for (const node of nodes) {
    if (node === place) {
      place = place.nextElementSibling;
    } else if (node === kept) {
      while (place !== kept) {
        const next = place.nextElementSibling;
        parent.append(place);
        place = next;
      }
      place = kept.nextElementSibling;
    } else {
      parent.insertBefore(node, place);
    }
  }
}

function firstOf(parent, nodes) {
  const members = new Set(nodes);
  for (let child = parent.firstElementChild; child !== null; child = child.nextElementSibling) {
    if (members.has(child)) return child;
  }
  return null;
}
