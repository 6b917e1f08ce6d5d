/* Tells screen readers of changes, and of nothing else: a number that moves is no news. */

import { conditionOf, levelOf, serviceOf } from "./condition.js";
import { byId, write } from "./elements.js";

const GAP = 1500; // milliseconds in which changes are put together
const MOST = 3;

export class Announcer {
  #waiting = [];
  #timer = null;
  #known = null;

  say(text) {
    if (!this.#waiting.includes(text)) this.#waiting.push(text);
    this.#timer ??= setTimeout(() => this.#speak(), GAP);
  }

  /** Compares with the document before. */
  update(document) {
    const words = new Map([["service", `Service ${serviceOf(document.service).word}`]]);
    for (const one of document.dependencies)
      words.set(`dependency ${one.name}`, `${one.name} ${conditionOf({ ...one, rejections: 0, budget: null }).word}`);
    for (const one of document.features) words.set(`feature ${one.name}`, `feature ${one.name} ${levelOf(one).word}`);
    if (this.#known !== null) {
      for (const [key, text] of words) if (this.#known.has(key) && this.#known.get(key) !== text) this.say(text);
    }
    this.#known = words;
  }

  #speak() {
    this.#timer = null;
    const told = this.#waiting.slice(0, MOST);
    if (this.#waiting.length > MOST) told.push(`and ${this.#waiting.length - MOST} more changes`);
    this.#waiting = [];
    write(byId("announcer"), `${told.join("; ")}.`);
  }
}
