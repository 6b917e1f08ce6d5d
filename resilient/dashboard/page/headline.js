/* The top of the page: how the service is and why, which worker says so, and whether that is so now. */

import { reasonsOf, serviceOf, summaryOf } from "./condition.js";
import { attribute, byId, element, reshape, shape, show, write } from "./elements.js";
import { clock, span } from "./format.js";

const MOST = 5; // reasons that are shown
const STALE = 5; // seconds after which numbers are no news any more
const WORDS = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", polling: "Polling" };
const COLOURS = { ok: "#2f8f63", warning: "#d08a12", bad: "#d4382c", off: "#85817a" };
const OUTLINES = {
  ok: "<circle cx='8' cy='8' r='6'/>",
  warning: "<path d='M8 1l7.5 13.5H.5z'/>",
  bad: "<path d='M5 1h6l4 4v6l-4 4H5l-4-4V5z'/>",
};

export class Headline {
  #mark = shape("off");
  #phase = "connecting";
  #why = "";
  #received = null; // when the last document came, on the page's clock
  #worker = "";
  #up = 0; // seconds
  #level = "Loading";
  #actions;
  #shown = "";

  constructor(actions) {
    this.#actions = actions;
    byId("level-shape").append(this.#mark);
  }

  /** Whether the numbers on the page are those of now. */
  get stale() {
    return this.#received !== null && seconds() - this.#received > STALE;
  }

  update(state) {
    this.#received = seconds();
    const level = serviceOf(state.service);
    const { status } = state.service;
    this.#level = status && status !== "ready" ? `${level.word}, ${status}` : level.word;
    attribute(byId("headline"), "data-tone", level.tone);
    reshape(this.#mark, level.shape);
    write(byId("summary"), summaryOf(state));
    this.#list(reasonsOf(state));
    this.#worker = `${state.worker.host}:${state.worker.pid}`;
    this.#up = state.at - state.worker.started;
    this.#icon(level.tone);
    this.tick();
  }

  connected(phase, why) {
    this.#phase = phase;
    this.#why = why;
    this.tick();
  }

  tick() {
    const { stale } = this;
    const age = this.#received === null ? 0 : seconds() - this.#received;
    attribute(document.documentElement, "data-stale", String(stale));
    attribute(byId("connection"), "data-phase", stale ? "stale" : this.#phase);
    const since = clock(Date.now() / 1000 - age);
    write(byId("connection-word"), stale ? `Stale since ${since}` : (WORDS[this.#phase] ?? this.#phase));
    write(byId("connection-detail"), stale || this.#phase !== "live" ? this.#why : "");
    write(byId("level-word"), stale ? `${this.#level} ${span(age)} ago` : this.#level);
    if (this.#worker) write(byId("worker"), `worker ${this.#worker}, up ${span(this.#up + age)}`);
    const title = this.#worker ? `${stale ? "Stale" : this.#level} · ${this.#worker} · resilient` : "resilient";
    if (document.title !== title) document.title = title;
  }

  #list(reasons) {
    const key = JSON.stringify(reasons);
    if (key === this.#shown) return;
    this.#shown = key;
    const place = byId("reasons");
    const lines = reasons.slice(0, MOST).map(({ tone, shape: kind, about, feature, text }) => {
      const words = element("span", {});
      if (about ?? feature) {
        const link = element("button", { type: "button", class: "link" }, about ?? feature);
        link.addEventListener("click", () => (about === undefined ? this.#actions.feature(feature) : this.#actions.open(about)));
        words.append(...(about === undefined ? ["feature "] : []), link, ` ${text}`);
      } else {
        words.append(text);
      }
      return element("li", { "data-tone": tone }, element("span", { class: "shape-place" }, shape(kind)), words);
    });
    if (reasons.length > MOST) lines.push(element("li", { class: "more" }, `and ${reasons.length - MOST} more`));
    const focused = [...place.querySelectorAll("button")].findIndex((one) => one === document.activeElement);
    place.replaceChildren(...lines);
    if (focused >= 0) place.querySelectorAll("button")[focused]?.focus();
    show(place, lines.length > 0);
  }

  #icon(tone) {
    const image = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='${COLOURS[tone]}'>${OUTLINES[tone] ?? OUTLINES.ok}</svg>`;
    attribute(byId("icon"), "href", `data:image/svg+xml,${encodeURIComponent(image)}`);
  }
}

const seconds = () => performance.now() / 1000;
