/* The load of the app itself, as a few figures. */

import { attribute, byId, element, show, write } from "./elements.js";
import { UNKNOWN, count, latency, rate, share, whole } from "./format.js";
import { Sparkline } from "./sparkline.js";

const line = (lines, what, format = rate) => new Sparkline({ lines, what, format });

const FIGURES = [
  {
    title: "Requests",
    line: line(["requests"], "Requests per second"),
    series: ["requests"],
    value: (load) => [rate(load.requests), "per second"],
  },
  {
    title: "Shed",
    line: line(["shed"], "Requests shed per second"),
    series: ["shed"],
    value: (load) => [
      rate(load.shed),
      load.shed > 0 ? classes(load.shed_by) : load.would_shed > 0 ? `would be ${rate(load.would_shed)} (shadow)` : "per second",
    ],
    tone: { is: "bad", when: (load) => load.shed > 0 },
  },
  {
    title: "In flight",
    line: line(["in_flight"], "Requests in flight", whole),
    series: ["in_flight"],
    value: (load) => [whole(load.in_flight), load.in_flight === null ? "no admission control" : inside(load)],
    tone: { is: "warning", when: (load) => load.queued > 0 },
  },
  { title: "Latency, p99", value: (load) => [latency(load.p99), `p50 ${latency(load.p50)}, p95 ${latency(load.p95)}`] },
  {
    title: "Event loop lag",
    value: (load) => [latency(load.lag), "behind its time"],
    tone: { is: "warning", when: (load) => load.lag > 0.1 },
  },
  {
    title: "Brownout",
    value: ({ brownout }) => (brownout ? [share(1 - brownout.share), dimmed(brownout)] : [UNKNOWN, "not installed"]),
    tone: { is: "warning", when: ({ brownout }) => Boolean(brownout) && brownout.share < 1 },
  },
];

function inside({ limit, queued, streams }) {
  const parts = [limit === null ? "no limit" : `of ${whole(limit)}`, `${whole(queued)} queued`];
  if (streams > 0) parts.push(count(streams, "stream"));
  return parts.join(", ");
}

function dimmed({ share: left, enforce }) {
  if (left >= 1) return "nothing dimmed";
  return enforce === false ? "would be dimmed (shadow)" : "of optional uses dimmed";
}

function classes(by) {
  const told = Object.entries(by ?? {}).filter(([, number]) => number > 0);
  return told.map(([name, number]) => `${rate(number)} ${name.replace("_", " ")}`).join(", ") || "per second";
}

export class Load {
  #figures;
  #place = byId("load");

  constructor() {
    this.#figures = FIGURES.map((figure) => {
      const value = element("span", { class: "value" });
      const note = element("span", { class: "note" });
      const node = element("div", { class: "figure" }, element("dt", {}, figure.title), element("dd", {}, value, note));
      if (figure.line) node.lastChild.append(figure.line.node);
      return { ...figure, node, value, note, tell: figure.value };
    });
    this.#place.append(...this.#figures.map(({ node }) => node));
  }

  update(load) {
    show(this.#place, load !== null);
    show(byId("load-absent"), load === null);
    if (load === null) return;
    for (const { node, value, note, tell, tone } of this.#figures) {
      const [number, words] = tell(load);
      write(value, number);
      write(note, words);
      attribute(node, "data-tone", tone && tone.when(load) ? tone.is : "none");
    }
  }

  draw(history) {
    for (const figure of this.#figures)
      figure.line?.draw(
        figure.series.map((name) => history.load(name)),
        history.seconds,
      );
  }
}
