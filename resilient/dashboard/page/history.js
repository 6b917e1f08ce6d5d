/* The last minutes as series of numbers. The server's come with /state; the page goes on with them by itself. */

const STEP = 2; // seconds
const KEPT = 150; // samples
const OF_DEPENDENCY = ["calls", "failures", "p95"];
const OF_LOAD = ["requests", "shed", "in_flight"];

export class History {
  #step = STEP;
  #slot = null; // number of the step that the newest sample is of
  #dependencies = new Map();
  #load = new Map();

  get seconds() {
    return this.#step * (KEPT - 1);
  }

  dependency(name, measure) {
    return this.#dependencies.get(name)?.get(measure) ?? [];
  }

  load(measure) {
    return this.#load.get(measure) ?? [];
  }

  forget() {
    this.#slot = null;
    this.#dependencies.clear();
    this.#load.clear();
  }

  /** Takes over what the server has kept. */
  adopt({ step, until, dependencies, load }) {
    this.#step = step > 0 ? step : STEP;
    this.#slot = typeof until === "number" ? Math.floor(until / this.#step) : null;
    this.#dependencies = new Map(Object.entries(dependencies ?? {}).map(([name, series]) => [name, kept(series, OF_DEPENDENCY)]));
    this.#load = kept(load ?? {}, OF_LOAD);
  }

  /** Takes a sample of this moment, one a step. Returns whether there is a new one. */
  sample({ at, dependencies, load }) {
    const slot = Math.floor(at / this.#step);
    if (this.#slot !== null && slot <= this.#slot) return false;
    const gap = this.#slot === null ? 0 : Math.min(slot - this.#slot - 1, KEPT);
    this.#slot = slot;
    const before = this.#dependencies;
    this.#dependencies = new Map(); // of the dependencies that there are; those that are gone are forgotten
    for (const one of dependencies) {
      const series = before.get(one.name) ?? kept({}, OF_DEPENDENCY);
      for (const measure of OF_DEPENDENCY) push(series.get(measure), gap, one[measure]);
      this.#dependencies.set(one.name, series);
    }
    if (this.#load.size === 0) this.#load = kept({}, OF_LOAD);
    for (const measure of OF_LOAD) push(this.#load.get(measure), gap, load?.[measure]);
    return true;
  }
}

function kept(series, measures) {
  return new Map(measures.map((measure) => [measure, Array.isArray(series[measure]) ? series[measure].slice(-KEPT) : []]));
}

function push(samples, gap, value) {
  for (let missing = 0; missing < gap; missing += 1) samples.push(null);
  samples.push(value ?? null);
  if (samples.length > KEPT) samples.splice(0, samples.length - KEPT);
}
