/* The features: what users get of each, and because of what or whom. */

import { levelOf, saidBy } from "./condition.js";
import { arrange, attribute, byId, element, reshape, shape, show, write } from "./elements.js";
import { clock, rate, share, several, span } from "./format.js";

export class Features {
  #items = new Map();
  #list = byId("features-list");
  #actions;

  /** `actions` has button(action, subject) and open(dependency). */
  constructor(actions) {
    this.#actions = actions;
  }

  /** `others` counts the ones that the document has no room for. */
  update(features, others, now, allowed) {
    const names = new Set(features.map((one) => one.name));
    for (const [name, item] of this.#items) {
      if (names.has(name)) continue;
      item.node.remove();
      this.#items.delete(name);
    }
    for (const facts of features) {
      let item = this.#items.get(facts.name);
      if (item === undefined) {
        item = new Item(facts.name, this.#actions);
        this.#items.set(facts.name, item);
        this.#list.append(item.node);
      }
      item.update(facts, now, allowed);
    }
    const items = [...this.#items.values()].sort((a, b) => b.rank - a.rank || (a.facts.name < b.facts.name ? -1 : 1));
    arrange(
      this.#list,
      items.map((item) => item.node),
    );
    const less = features.filter((one) => one.level !== "full").length;
    write(byId("features-count"), less > 0 ? `${less} of ${features.length} below full` : String(features.length));
    show(byId("features-none"), features.length === 0);
    show(byId("features-others"), others > 0);
    write(byId("features-others"), `and ${others} more, which are not shown`);
  }

  tick(now) {
    for (const item of this.#items.values()) item.tick(now);
  }

  show(name) {
    const item = this.#items.get(name);
    if (item === undefined) return;
    item.node.focus({ preventScroll: true });
    item.node.scrollIntoView({ block: "nearest" });
  }
}

class Item {
  rank = 0;
  #actions;
  #offered = "";
  #needed = "";

  constructor(name, actions) {
    this.#actions = actions;
    this.mark = shape("ok");
    this.word = element("span", { class: "word" });
    this.critical = element("span", { class: "tag", hidden: true }, "critical");
    this.why = element("span", { class: "why" });
    this.orders = element("ul", { class: "orders" });
    this.needs = element("p", { class: "needs" });
    this.buttons = element("div", {
      class: "row-controls",
      role: "group",
      "aria-label": `Controls of the feature ${name}`,
      hidden: true,
    });
    const title = element("p", { class: "title" });
    title.append(element("span", { class: "shape-place" }, this.mark), element("strong", { class: "name" }, name), this.critical);
    const standing = element("p", { class: "standing" }, this.word, this.why);
    this.node = element(
      "li",
      { tabindex: "-1" },
      element("div", { class: "told" }, title, standing, this.orders, this.needs),
      this.buttons,
    );
  }

  update(facts, now, allowed) {
    this.facts = facts;
    const level = levelOf(facts);
    this.rank = level.rank + (facts.critical && level.rank > 0 ? 10 : 0);
    attribute(this.node, "data-tone", level.tone);
    reshape(this.mark, level.shape);
    write(this.word, level.word);
    show(this.critical, facts.critical);
    this.#list(facts.orders ?? []);
    this.#need(facts.needs ?? []);
    this.#offer(facts, allowed);
    this.tick(now);
  }

  tick(now) {
    const { facts } = this;
    const parts = [];
    if (facts.level !== "full" && facts.cause) parts.push(facts.cause);
    const said = saidBy(facts);
    if (said) parts.push(said);
    if (facts.since && facts.level !== "full") parts.push(`for ${span(now - facts.since)}`);
    if (facts.degraded > 0) parts.push(`${rate(facts.degraded)}/s below full`);
    write(this.why, parts.join(" · "));
  }

  #list(orders) {
    const lines = orders.map(orderLine);
    if ([...this.orders.children].map((one) => one.textContent).join("\n") === lines.join("\n")) return;
    this.orders.replaceChildren(...lines.map((line) => element("li", {}, line)));
  }

  #need(needs) {
    if (needs.join("\n") === this.#needed) return;
    this.#needed = needs.join("\n");
    const links = needs.map((name) => {
      const link = element("button", { type: "button", class: "link" }, name);
      link.addEventListener("click", () => this.#actions.open(name));
      return link;
    });
    this.needs.replaceChildren(
      ...(links.length > 0 ? ["needs ", ...links.flatMap((link, index) => (index > 0 ? [", ", link] : [link]))] : []),
    );
  }

  #offer(facts, allowed) {
    const offered = [];
    if (allowed.has("set_level") && (facts.levels ?? []).length > 0) offered.push("set_level");
    if (allowed.has("clear") && (facts.orders ?? []).length > 0) offered.push("clear");
    const tenants = (facts.orders ?? []).map(({ tenant }) => tenant ?? "");
    this.subject = {
      feature: facts.name,
      levels: facts.levels ?? [],
      level: facts.level,
      tenants: tenants.includes("") ? [] : tenants,
    };
    if (offered.join() === this.#offered) return;
    this.#offered = offered.join();
    this.buttons.replaceChildren(...offered.map((action) => this.#actions.button(action, () => this.subject)));
    show(this.buttons, offered.length > 0);
  }
}

function orderLine({ level, by, why, until, tenant, share: part }) {
  const whom = [
    tenant ? `tenant ${tenant}` : "",
    typeof part === "number" && part < 1 ? `${share(part)} of the uses` : "",
  ].filter(Boolean);
  const facts = [`ordered ${level}${whom.length > 0 ? ` for ${several(whom)}` : ""}`, saidBy({ by, why })];
  if (until) facts.push(`until ${clock(until)}`);
  return facts.filter(Boolean).join(", ");
}
