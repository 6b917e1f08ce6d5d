/* What may be done from here: each action asks for a reason, and tells how it ended. */

import { byId, element, show, write } from "./elements.js";
import { clock } from "./format.js";

const ACTIONS = {
  isolate: {
    button: "Isolate…",
    title: (name) => `Isolate ${name}?`,
    text: "Every call is rejected at once until somebody closes the circuit. Features that need it serve their fallback.",
    confirm: "Isolate",
  },
  half_open: {
    button: "Half-open…",
    title: (name) => `Let trials through to ${name}?`,
    text: "A few calls are let through; they decide whether the circuit closes or opens again.",
    confirm: "Half-open",
  },
  close: {
    button: "Close…",
    title: (name) => `Close the circuit of ${name}?`,
    text: "Every call is let through at once, and what was learnt of its failures is forgotten.",
    confirm: "Close the circuit",
  },
  set_level: {
    button: "Set level…",
    title: (name) => `Set the level of ${name}`,
    text: "Every use of the feature is served at this level at best, whatever its dependencies do.",
    confirm: "Set the level",
    asks: ["level", "share", "tenant", "until"],
  },
  clear: {
    button: "Clear…",
    title: (name) => `Take back what was ordered of ${name}?`,
    text: "The feature's level follows its dependencies and the load again.",
    confirm: "Take it back",
    asks: ["tenant"],
  },
  read_only: {
    button: "Read-only…",
    title: () => "Refuse writes?",
    text: "Requests and features that change anything are refused until somebody takes it back.",
    confirm: "Refuse writes",
    asks: ["until"],
  },
  read_write: {
    button: "Take writes again…",
    title: () => "Take writes again?",
    text: "Requests that change something are served again.",
    confirm: "Take writes",
  },
  drain: {
    button: "Drain…",
    title: () => "Drain this worker?",
    text: "It stops being ready, finishes what is in flight and refuses new requests. This cannot be taken back from here.",
    confirm: "Drain this worker",
  },
};

const SERVICE = ["read_only", "read_write", "drain"];
const FIELDS = ["level", "share", "tenant", "until"]; // what an action may ask for beside the reason
const NUMBERS = new Set(["share", "until"]);
const SHOWN = 8000; // milliseconds that an outcome is shown

export class Controls {
  #base;
  #granted = null;
  #open = null; // the action and subject that the dialog is about
  #dialog = byId("dialog");
  #hiding = null;
  #offered = "";

  constructor(base) {
    this.#base = base;
    byId("dialog-cancel").addEventListener("click", () => this.#dialog.close());
    byId("dialog-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
  }

  /** The actions that this reader may take. */
  get allowed() {
    return new Set(this.#granted?.actions ?? []);
  }

  update({ controls, service }) {
    this.#granted = controls;
    const stopped = service.read_only !== null && service.read_only !== undefined;
    const needless = { read_only: stopped, read_write: !stopped, drain: service.draining };
    const offered = SERVICE.filter((action) => this.allowed.has(action) && !needless[action]);
    if (offered.join() === this.#offered) return;
    this.#offered = offered.join();
    const place = byId("service-controls");
    place.replaceChildren(...offered.map((action) => this.button(action, {})));
    show(place, offered.length > 0);
  }

  /** A button that offers an action; `subject` is what it is about, or a function that says so at the click. */
  button(action, subject) {
    const known = ACTIONS[action];
    const made = element("button", { type: "button", class: "quiet", "data-action": action }, known?.button ?? `${action}…`);
    made.addEventListener("click", () => this.#offer(action, typeof subject === "function" ? subject() : subject));
    return made;
  }

  #offer(action, subject) {
    const known = ACTIONS[action];
    const name = subject.dependency ?? subject.feature ?? "";
    this.#open = { action, subject };
    write(byId("dialog-title"), known.title(name));
    write(byId("dialog-text"), known.text);
    write(byId("dialog-confirm"), known.confirm);
    write(byId("dialog-who"), this.#granted?.who ?? "");
    const asks = known.asks ?? [];
    for (const field of FIELDS) show(byId(`dialog-${field}-field`), asks.includes(field));
    byId("dialog-level").replaceChildren(...(subject.levels ?? []).map((level) => element("option", { value: level }, level)));
    byId("dialog-level").value = subject.level ?? "";
    byId("dialog-tenants").replaceChildren(...(subject.tenants ?? []).map((tenant) => element("option", { value: tenant })));
    byId("dialog-tenant").value = action === "clear" ? (subject.tenants?.[0] ?? "") : "";
    byId("dialog-share").value = "1";
    byId("dialog-until").value = "";
    byId("dialog-why").value = "";
    this.#complain("");
    this.#dialog.showModal();
    byId(asks.includes("level") ? "dialog-level" : "dialog-why").focus();
  }

  async #send() {
    const { action, subject } = this.#open;
    const why = byId("dialog-why").value.trim();
    if (why === "") {
      this.#complain("Say why: those who look at this later will ask.");
      byId("dialog-why").focus();
      return;
    }
    const order = { action, why };
    const name = subject.dependency ?? subject.feature;
    if (name !== undefined) order.name = name;
    for (const field of ACTIONS[action].asks ?? []) {
      const value = byId(`dialog-${field}`).value;
      if (value !== "") order[field] = NUMBERS.has(field) ? Number(value) : value;
    }
    const confirm = byId("dialog-confirm");
    confirm.disabled = true;
    this.#complain("");
    const refused = await this.#post(order);
    confirm.disabled = false;
    if (refused !== null) {
      this.#complain(refused);
      return;
    }
    this.#dialog.close();
    this.#tell(`${clock(Date.now() / 1000)}: ${action.replace("_", " ")}${order.name ? ` ${order.name}` : ""}: done`);
  }

  /** Why an order was refused; null if it was not. */
  async #post(order) {
    if (this.#granted === null) return "This page may control nothing any more; load it again.";
    try {
      const answer = await fetch(new URL("controls", this.#base), {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Resilient-Token": this.#granted.token },
        body: JSON.stringify(order),
        signal: AbortSignal.timeout(10_000),
      });
      if (answer.ok) return null;
      const told = await answer.json().catch(() => ({}));
      const detail = told.detail ?? told.error ?? told.title ?? "";
      return `Refused (${answer.status})${detail ? `: ${detail}` : ""}`;
    } catch (error) {
      return error.name === "TimeoutError"
        ? "No answer came; look at the events before you try again."
        : "The server cannot be reached; nothing was done as far as this page knows.";
    }
  }

  #complain(text) {
    write(byId("dialog-error"), text);
    show(byId("dialog-error"), text !== "");
  }

  #tell(text) {
    const place = byId("outcome");
    show(place, true);
    write(place, text);
    clearTimeout(this.#hiding);
    this.#hiding = setTimeout(() => show(place, false), SHOWN);
  }
}
