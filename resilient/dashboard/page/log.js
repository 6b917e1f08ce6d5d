/* What happened, newest first: so many entries and no more, and those that fit the filter. */

import { byId, element, shape, show, write } from "./elements.js";
import { clock, date } from "./format.js";

const KEPT = 300;
const GRAVITY = { info: 0, warning: 1, bad: 2 };
const SHAPES = { info: "info", warning: "warning", bad: "bad" };
const WORDS = { info: "", warning: "Warning: ", bad: "Bad: " };

export class Log {
  #entries = []; // newest first
  #known = new Set();
  #list = byId("events-list");
  #find = byId("events-find");
  #least = byId("events-least");

  constructor() {
    this.#find.addEventListener("input", () => this.#filter());
    this.#least.addEventListener("change", () => this.#filter());
  }

  /** Takes in what is not there yet; `source` tells events of one worker's life from those of another. */
  add(events, source) {
    for (const event of events) {
      const key = `${source} ${event.id}`;
      if (this.#known.has(key)) continue;
      this.#known.add(key);
      this.#insert({ key, event, node: line(event), words: `${event.about} ${event.kind} ${event.text}`.toLowerCase() });
    }
    while (this.#entries.length > KEPT) {
      const oldest = this.#entries.pop();
      this.#known.delete(oldest.key);
      oldest.node.remove();
    }
    this.#filter();
  }

  find(text) {
    this.#find.value = text;
    this.#least.value = "info";
    this.#filter();
    this.#find.focus();
    this.#find.scrollIntoView({ block: "nearest" });
  }

  #insert(entry) {
    const found = this.#entries.findIndex(({ event }) => event.at <= entry.event.at);
    const index = found < 0 ? this.#entries.length : found;
    this.#list.insertBefore(entry.node, this.#entries[index]?.node ?? null);
    this.#entries.splice(index, 0, entry);
    entry.node.hidden = !this.#fits(entry);
  }

  #fits({ event, words }) {
    const wanted = this.#find.value.trim().toLowerCase();
    return (GRAVITY[event.severity] ?? 0) >= GRAVITY[this.#least.value] && (wanted === "" || words.includes(wanted));
  }

  #filter() {
    let shown = 0;
    for (const entry of this.#entries) {
      const fits = this.#fits(entry);
      show(entry.node, fits);
      shown += fits;
    }
    write(byId("events-count"), shown === this.#entries.length ? String(shown) : `${shown} of ${this.#entries.length}`);
    show(byId("events-none"), shown === 0);
    write(byId("events-none"), this.#entries.length === 0 ? "No event yet." : "No event fits.");
  }
}

function line({ at, about, kind, text, severity }) {
  const tone = severity in GRAVITY ? severity : "info";
  const name = String(about ?? "").replace(/^(dependency|feature):/, "");
  return element(
    "li",
    { "data-tone": tone, title: kind ?? "" },
    element("time", { datetime: date(at) }, clock(at)),
    element("span", { class: "shape-place" }, shape(SHAPES[tone])),
    element(
      "p",
      {},
      element("span", { class: "unseen" }, WORDS[tone]),
      element("strong", {}, name),
      name ? " " : "",
      String(text ?? ""),
    ),
  );
}
