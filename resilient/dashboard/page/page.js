/* Puts the page together: what the connection hears goes to the parts, which change what is there already. */

import { Announcer } from "./announcer.js";
import { Connection } from "./connection.js";
import { Controls } from "./controls.js";
import { Dependencies } from "./dependencies.js";
import { Features } from "./features.js";
import { Headline } from "./headline.js";
import { History } from "./history.js";
import { Load } from "./load.js";
import { Log } from "./log.js";
import { startTheme } from "./theme.js";

const VERSION = 1;
const SIBLINGS = 5;
const BASE = import.meta.url; // …/resilience/page.js: its neighbours are the data, under whatever prefix

class Page {
  #history = new History();
  #announcer = new Announcer();
  #log = new Log();
  #load = new Load();
  #controls = new Controls(BASE);
  #dependencies = new Dependencies(this.#history, {
    button: (action, subject) => this.#controls.button(action, subject),
    log: (name) => this.#log.find(name),
    redraw: () => this.#redraw(),
  });
  #features = new Features({
    button: (action, subject) => this.#controls.button(action, subject),
    open: (name) => this.#open(name),
  });
  #headline = new Headline({ open: (name) => this.#open(name), feature: (name) => this.#features.show(name) });
  #connection = new Connection(BASE, {
    state: (state, polled) => this.#state(state, polled),
    whole: (state) => this.#adopt(state),
    event: (event) => this.#log.add([event], this.#life),
    phase: (name, why) => this.#phase(name, why),
  });
  #life = null; // which worker is shown, and which of its lives
  #latest = null;
  #ahead = 0; // seconds that the server's clock is ahead of the page's
  #frame = null;
  #said = "";
  #siblings = 0; // how often another worker has answered in place of the one shown

  start() {
    this.#connection.start();
    setInterval(() => this.#tick(), 1000);
    addEventListener("pagehide", () => this.#connection.stop());
    addEventListener("pageshow", (event) => {
      if (event.persisted) this.#connection.start();
    });
  }

  get #now() {
    return Date.now() / 1000 + this.#ahead;
  }

  #state(state, polled = false) {
    if (state.version !== VERSION) {
      this.#headline.connected("reconnecting", `the server speaks version ${state.version}, this page ${VERSION}: load it again`);
      return;
    }
    const life = lifeOf(state.worker);
    if (this.#life !== null && this.#life !== life) {
      if (polled && this.#isSibling(state)) return;
      this.#otherWorker(state);
    }
    this.#siblings = 0;
    this.#life = life;
    this.#latest = state;
    this.#ahead = state.at - Date.now() / 1000;
    if (this.#history.sample(state)) this.#redraw();
    this.#frame ??= requestAnimationFrame(() => this.#render());
  }

  #render() {
    this.#frame = null;
    const state = this.#latest;
    this.#controls.update(state);
    this.#headline.update(state);
    this.#load.update(state.load);
    this.#dependencies.update(state.dependencies, state.others, this.#now, this.#controls.allowed);
    this.#features.update(state.features, state.other_features ?? 0, this.#now, this.#controls.allowed);
    this.#announcer.update(state);
  }

  /** Takes over history and log. Returns whether they are of the worker that is shown. */
  #adopt(state) {
    if (this.#life !== null && lifeOf(state.worker) !== this.#life) return false;
    if (state.history) this.#history.adopt(state.history);
    this.#log.add(state.events ?? [], lifeOf(state.worker));
    this.#redraw();
    return true;
  }

  /** Whether a worker is one of several that answer in turn, which is passed over a few times, rather than the next life of the one shown. */
  #isSibling(state) {
    const older = state.worker.started < this.#latest.at;
    this.#siblings += 1;
    return older && this.#siblings <= SIBLINGS;
  }

  #otherWorker({ worker, at }) {
    this.#history.forget();
    const text = `this page shows worker ${worker.host}:${worker.pid} from here on`;
    this.#log.add([{ id: `shown ${at}`, at, kind: "WorkerShown", about: "", text, severity: "warning" }], lifeOf(worker));
    this.#announcer.say(text);
    this.#connection.load();
  }

  #phase(name, why) {
    this.#headline.connected(name, why);
  }

  #tick() {
    this.#connection.tick();
    this.#headline.tick();
    if (this.#headline.stale) {
      this.#say("The numbers are stale.");
      return; // what is shown stands still, and looks it
    }
    this.#say(this.#latest === null ? "" : "The numbers are live.");
    this.#dependencies.tick(this.#now);
    this.#features.tick(this.#now);
  }

  #say(text) {
    if (text === this.#said) return;
    if (this.#said !== "") this.#announcer.say(text);
    this.#said = text;
  }

  #redraw() {
    requestAnimationFrame(() => {
      this.#dependencies.draw();
      this.#load.draw(this.#history);
    });
  }

  #open(name) {
    this.#dependencies.open(name);
  }
}

const lifeOf = (worker) => `${worker.id} ${worker.started}`;

startTheme();
new Page().start();
