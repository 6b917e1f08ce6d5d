/* A line of the last minutes, and the same in words. */

import { attribute, drawing } from "./elements.js";

const WIDTH = 149; // one less than there are samples
const HEIGHT = 40;
const EDGE = 2; // keeps the stroke inside
const ILL = new Set(["failures", "shed"]); // drawn where there are any: a line at nothing would look like trouble

export class Sparkline {
  /**
   * `lines` names the series, the main one first; the others are drawn in the same scale. `what` begins the words that
   * tell it, `format` writes a number, and a series whose values are all below `least` does not fill the height.
   */
  constructor({ lines, what, format, least = 1 }) {
    this.lines = lines;
    this.what = what;
    this.format = format;
    this.least = least;
    this.node = drawing("svg", {
      class: "sparkline",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `${what}: no history yet`,
    });
    this.base = drawing("path", { class: "base", d: `M0 ${HEIGHT - EDGE}H${WIDTH}` });
    this.areas = lines.map((name) => drawing("path", { class: `area of-${name}` }));
    this.paths = lines.map((name) => drawing("path", { class: `line of-${name}` }));
    this.node.append(this.base, ...this.areas, ...this.paths);
    this.top = null; // the highest value that is shown
  }

  /** Draws the series; each is aligned to the right, where now is. */
  draw(series, seconds) {
    const all = series.flat().filter((value) => value !== null);
    this.top = all.length > 0 ? Math.max(...all) : null;
    const scale = (HEIGHT - 2 * EDGE) / Math.max(this.least, this.top ?? 0);
    series.forEach((samples, index) => {
      const runs = runsOf(ILL.has(this.lines[index]) ? samples.map((value) => value || null) : samples);
      attribute(this.paths[index], "d", runs.map((run) => line(run, scale)).join(""));
      attribute(this.areas[index], "d", runs.map((run) => `${line(run, scale)}V${HEIGHT}H${run[0].x}Z`).join(""));
    });
    attribute(this.node, "aria-label", this.#words(series[0], seconds));
  }

  #words(samples, seconds) {
    const values = samples.filter((value) => value !== null);
    if (values.length === 0) return `${this.what}: no history yet`;
    const [low, high, now] = [Math.min(...values), Math.max(...values), values.at(-1)].map(this.format);
    return `${this.what}, last ${Math.round(seconds / 60)} minutes: now ${now}, lowest ${low}, highest ${high}`;
  }
}

/** Stretches without a gap, as points; a single one is drawn as a short dash. */
function runsOf(samples) {
  const runs = [];
  let run = [];
  const first = WIDTH + 1 - samples.length;
  samples.forEach((value, index) => {
    if (value === null) {
      if (run.length > 0) runs.push(run);
      run = [];
    } else {
      run.push({ x: first + index, value });
    }
  });
  if (run.length > 0) runs.push(run);
  return runs;
}

function line(run, scale) {
  const points = run.map(({ x, value }) => `${x} ${(HEIGHT - EDGE - value * scale).toFixed(1)}`);
  return run.length === 1 ? `M${points[0]}h1` : `M${points.join("L")}`;
}
