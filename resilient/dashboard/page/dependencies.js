/* The table of dependencies: a row each, updated in place. */

import { IN_TROUBLE, conditionOf } from "./condition.js";
import { Detail } from "./detail.js";
import { arrange, attribute, byId, element, reshape, shape, show, write } from "./elements.js";
import { UNKNOWN, latency, rate, share, span, whole } from "./format.js";
import { Sparkline } from "./sparkline.js";

const STAYS = 10; // seconds that a row keeps its place after its trouble is over, so that rows do not jump about
const ASIDE = 5; // a row that is out of sight is written at each fifth document; its condition at each
const COLUMNS = 9;
const MANY = 10; // rows from which the events stand beside them rather than below

const NEARBY = { rootMargin: "50% 0px" };

const ORDERS = {
  trouble: (a, b) => b.rank - a.rank || b.facts.required - a.facts.required || byName(a, b),
  name: byName,
  calls: (a, b) => (b.facts.calls ?? 0) - (a.facts.calls ?? 0) || byName(a, b),
  p99: (a, b) => (b.facts.p99 ?? -1) - (a.facts.p99 ?? -1) || byName(a, b),
};

function byName(a, b) {
  return a.facts.name < b.facts.name ? -1 : 1;
}

export class Dependencies {
  #rows = new Map();
  #table = byId("dependencies-table");
  #find = byId("dependencies-find");
  #only = byId("dependencies-trouble");
  #order = byId("dependencies-order");
  #resorted = 0;
  #actions;
  #history;
  #seen = new IntersectionObserver((entries) => {
    for (const entry of entries) this.#rows.get(entry.target.dataset.name)?.appear(entry.isIntersecting, this.#history);
  }, NEARBY);

  /** `actions` has offer(action, subject) and log(name), which shows the events of one. */
  constructor(history, actions) {
    this.#history = history;
    this.#actions = actions;
    this.#find.addEventListener("input", () => this.#arrange());
    this.#only.addEventListener("change", () => this.#arrange());
    this.#order.addEventListener("change", () => this.#arrange());
  }

  /** `others` tells of the ones that the document has no room for. */
  update(dependencies, others, now, allowed) {
    const names = new Set(dependencies.map((one) => one.name));
    for (const [name, row] of this.#rows) if (!names.has(name)) this.#remove(name, row);
    let moved = now - this.#resorted > 5 && this.#order.value !== "name";
    for (const facts of dependencies) {
      let row = this.#rows.get(facts.name);
      if (row === undefined) {
        row = new Row(facts.name, this.#actions);
        this.#rows.set(facts.name, row);
        this.#table.append(row.node);
        this.#seen.observe(row.node);
        moved = true;
      }
      moved = row.update(facts, now, allowed) || moved;
    }
    if (moved) {
      this.#resorted = now;
      this.#arrange();
    }
    show(byId("dependencies-others"), Boolean(others));
    if (others)
      write(
        byId("dependencies-others"),
        `and ${others.count} more, which are not shown: ${others.not_closed} of them not closed, ${rate(others.failures)} failures a second`,
      );
  }

  draw() {
    for (const row of this.#rows.values()) row.draw(this.#history);
  }

  tick(now) {
    for (const row of this.#rows.values()) row.tick(now);
  }

  /** Brings one into view, opened, whatever is filtered. */
  open(name) {
    const row = this.#rows.get(name);
    if (row === undefined) return;
    if (row.node.hidden) {
      this.#find.value = "";
      this.#only.checked = false;
      this.#arrange();
    }
    row.expand(true);
    row.draw(this.#history);
    row.name.focus({ preventScroll: true });
    row.node.scrollIntoView({ block: "nearest" });
  }

  #remove(name, row) {
    this.#seen.unobserve(row.node);
    row.node.remove();
    this.#rows.delete(name);
  }

  #arrange() {
    const rows = [...this.#rows.values()].sort(ORDERS[this.#order.value]);
    const wanted = this.#find.value.trim().toLowerCase();
    attribute(byId("columns"), "data-many", String(rows.length > MANY));
    let shown = 0;
    for (const row of rows) {
      const fits =
        (wanted === "" || row.facts.name.toLowerCase().includes(wanted)) && (!this.#only.checked || row.rank >= IN_TROUBLE);
      show(row.node, fits);
      shown += fits;
    }
    arrange(
      this.#table,
      rows.map((row) => row.node),
    );
    write(byId("dependencies-count"), shown === rows.length ? String(rows.length) : `${shown} of ${rows.length}`);
    show(byId("dependencies-none"), shown === 0);
    write(
      byId("dependencies-none"),
      rows.length === 0
        ? "No dependency is declared, and none was called yet."
        : wanted
          ? "No dependency has such a name."
          : "No dependency is in trouble.",
    );
  }
}

class Row {
  rank = 0;
  #calm = null; // since when its trouble is less than its place says
  #visible = false;
  #expanded = false;
  #cells = {};
  #detail = null;
  #actions;
  #received = 0;
  #turn = Row.made % ASIDE; // rows out of sight are not all written at the same time

  constructor(name, actions) {
    this.#actions = actions;
    const id = `dependency-${(Row.made += 1)}`;
    this.mark = shape("ok");
    this.name = element("button", { type: "button", class: "name", "aria-expanded": "false", "aria-controls": id }, name);
    this.name.addEventListener("click", () => this.expand(!this.#expanded));
    const cell = (label, ...nodes) => element("td", { role: "cell", "data-label": label }, ...nodes);
    const place = (key, tag = "span", kind = "number") => (this.#cells[key] = element(tag, { class: kind }));
    this.calls = new Sparkline({ lines: ["calls", "failures"], what: `Calls per second to ${name}`, format: rate });
    this.flight = bar();
    this.budget = bar();
    const head = element("th", { role: "rowheader", scope: "row", class: "name-column" });
    head.append(
      element("span", { class: "title" }, element("span", { class: "shape-place" }, this.mark), this.name),
      element("span", { class: "standing" }, place("word", "span", "word"), place("why", "span", "why")),
    );
    const main = element("tr", { role: "row" }, head);
    main.append(
      cell("Calls/s", place("calls"), this.calls.node),
      cell("Failing", place("failing")),
      cell("p50", place("p50")),
      cell("p95", place("p95")),
      cell("p99", place("p99")),
      cell("In flight", place("flight"), this.flight),
      cell("Budget", place("budget"), this.budget),
      cell("Rejected/s", place("rejected")),
    );
    this.place = element("td", { role: "cell", class: "detail", colspan: COLUMNS, id });
    this.more = element("tr", { role: "row", hidden: true }, this.place);
    this.node = element("tbody", { role: "rowgroup", "data-name": name }, main, this.more);
  }

  /** Returns whether its place among the others may have changed. */
  update(facts, now, allowed) {
    const first = this.facts === undefined;
    this.facts = facts;
    this.#received = now;
    this.allowed = allowed;
    const condition = conditionOf(facts);
    attribute(this.node, "data-tone", condition.tone);
    reshape(this.mark, condition.shape);
    write(this.#cells.word, condition.word);
    this.#turn = (this.#turn + 1) % ASIDE;
    if (first || this.#visible || this.#turn === 0) this.#tell(now);
    return this.#settle(condition.rank, now);
  }

  #tell(now) {
    const { facts } = this;
    const cells = this.#cells;
    write(cells.calls, rate(facts.calls));
    write(cells.failing, facts.calls > 0 || facts.failures > 0 ? share(facts.failure_ratio) : UNKNOWN);
    attribute(cells.failing.parentNode, "data-grave", String(facts.failure_ratio > 0 && facts.failures > 0));
    for (const name of ["p50", "p95", "p99"]) write(cells[name], latency(facts[name]));
    write(cells.flight, facts.limit === null ? whole(facts.in_flight) : `${whole(facts.in_flight)} / ${whole(facts.limit)}`);
    fill(this.flight, facts.limit > 0 ? facts.in_flight / facts.limit : null);
    write(cells.budget, share(facts.budget));
    fill(this.budget, facts.budget);
    write(cells.rejected, rate(facts.rejections));
    attribute(cells.rejected.parentNode, "data-grave", String(facts.rejections > 0));
    this.#say(now);
    if (this.#expanded) this.#detail.update(facts, this.allowed);
  }

  tick(now) {
    if (this.#visible && this.facts !== undefined) this.#say(now);
  }

  appear(visible, history) {
    this.#visible = visible;
    if (!visible) return;
    this.#tell(this.#received);
    this.draw(history);
  }

  draw(history) {
    if (!this.#visible) return;
    const { name } = this.facts;
    this.calls.draw([history.dependency(name, "calls"), history.dependency(name, "failures")], history.seconds);
    if (this.#expanded) this.#detail.draw(history);
  }

  expand(expanded) {
    this.#expanded = expanded;
    if (expanded && this.#detail === null) {
      this.#detail = new Detail(this.facts.name, this.#actions);
      this.place.append(this.#detail.node);
    }
    if (expanded) {
      this.#detail.update(this.facts, this.allowed);
      this.#actions.redraw();
    }
    show(this.more, expanded);
    attribute(this.name, "aria-expanded", String(expanded));
  }

  #settle(rank, now) {
    if (rank >= this.rank) {
      this.#calm = null;
    } else {
      this.#calm ??= now;
      if (now - this.#calm < STAYS) return false;
      this.#calm = null;
    }
    const moved = rank !== this.rank;
    this.rank = rank;
    return moved;
  }

  #say(now) {
    const { facts } = this;
    const parts = [];
    if (facts.reason) parts.push(facts.reason);
    if (facts.state !== "closed" && facts.last_change) parts.push(`for ${span(now - facts.last_change.at)}`);
    if (typeof facts.retry_after === "number" && facts.state === "open") {
      const rest = facts.retry_after - (now - this.#received);
      parts.push(rest > 0 ? `trial in ${Math.ceil(rest)} s` : "trial with the next call");
    }
    if (parts.length === 0 && facts.last_change)
      parts.push(`${facts.last_change.old} → ${facts.last_change.new} ${span(now - facts.last_change.at)} ago`);
    if (facts.required) parts.unshift("required");
    write(this.#cells.why, parts.join(" · "));
  }
}

Row.made = 0;

function bar() {
  return element("span", { class: "bar-of", "aria-hidden": "true" }, element("span", {}));
}

function fill(node, part) {
  show(node, part !== null);
  if (part === null) return;
  const scale = `scaleX(${Math.min(1, Math.max(0, part)).toFixed(2)})`;
  if (node.firstChild.style.transform !== scale) node.firstChild.style.transform = scale;
}
