import { attribute, element, write } from "./elements.js";
import { clock, date, latency, rate, whole } from "./format.js";
import { Sparkline } from "./sparkline.js";

/** What is told of a dependency once its row is opened. */
export class Detail {
  #facts = {};
  #buttons = null;
  #offered = "";

  constructor(name, actions) {
    this.name = name;
    this.actions = actions;
    this.calls = new Sparkline({ lines: ["calls", "failures"], what: `Calls per second to ${name}`, format: rate });
    this.slowness = new Sparkline({ lines: ["p95"], what: `p95 of ${name}`, format: latency, least: 0.01 });
    const tops = (this.tops = [element("span", { class: "top" }), element("span", { class: "top" })]);
    const chart = (title, top, line) => element("figure", {}, element("figcaption", {}, title, " ", top), line.node);
    const list = element("dl", { class: "facts" });
    for (const title of ["Last change", "Calls", "In flight", "Cache", "Origin", "Policies"]) {
      this.#facts[title] = element("dd");
      list.append(element("div", {}, element("dt", {}, title), this.#facts[title]));
    }
    const log = element("button", { type: "button", class: "quiet" }, "Its events");
    log.addEventListener("click", () => actions.log(name));
    this.#buttons = element("div", { class: "row-controls", role: "group", "aria-label": `Controls of ${name}` }, log);
    this.node = element(
      "div",
      { class: "detail-box" },
      element(
        "div",
        { class: "charts" },
        chart("Calls and failures per second,", tops[0], this.calls),
        chart("p95,", tops[1], this.slowness),
      ),
      list,
      this.#buttons,
    );
  }

  update(facts, allowed) {
    const told = this.#facts;
    const change = facts.last_change;
    write(
      told["Last change"],
      change
        ? `${clock(change.at)}: ${change.old} → ${change.new}${change.reason ? `, ${change.reason}` : ""}`
        : "none since the start",
    );
    if (change) attribute(told["Last change"], "title", date(change.at));
    write(
      told.Calls,
      `${rate(facts.calls)}/s, of them failing ${rate(facts.failures)}/s; retried ${rate(facts.retries)}/s, rejected ${rate(facts.rejections)}/s`,
    );
    write(
      told["In flight"],
      `${whole(facts.in_flight)}${facts.limit === null ? ", no limit" : ` of at most ${whole(facts.limit)}`}, queued ${whole(facts.queued)}`,
    );
    const cache = facts.cache;
    write(
      told.Cache,
      cache ? `${rate(cache.hits)}/s found, ${rate(cache.misses)}/s missed, ${rate(cache.stale)}/s served stale` : "none",
    );
    write(told.Origin, `${facts.origin ?? "none"}${facts.required ? ", required" : ""}`);
    this.#policies(facts.policies ?? []);
    this.#offer(facts.controls ?? [], allowed);
  }

  draw(history) {
    this.calls.draw([history.dependency(this.name, "calls"), history.dependency(this.name, "failures")], history.seconds);
    this.slowness.draw([history.dependency(this.name, "p95")], history.seconds);
    write(this.tops[0], `at most ${rate(this.calls.top)}`);
    write(this.tops[1], `at most ${latency(this.slowness.top)}`);
  }

  #policies(policies) {
    const place = this.#facts.Policies;
    if (
      place.childElementCount === policies.length &&
      [...place.children].every((one, index) => one.textContent === policies[index])
    )
      return;
    place.replaceChildren(...policies.map((policy) => element("code", {}, policy)));
    if (policies.length === 0) place.append("none");
  }

  #offer(controls, allowed) {
    const offered = controls.filter((action) => allowed.has(action));
    if (offered.join() === this.#offered) return;
    this.#offered = offered.join();
    while (this.#buttons.childElementCount > 1) this.#buttons.lastElementChild.remove();
    for (const action of offered) this.#buttons.append(this.actions.button(action, { dependency: this.name }));
  }
}
